"""Submissions that are not what they claim to be: each changes an honest one, and says what it must be refused for."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from cheats_place import edited, of_kind, packed, sealed

from agentlab.csv_columns import read_columns
from agentlab.fitting import fit_rows
from agentlab.law import parse
from agentlab.leaderboard_tasks import intake_of
from agentlab.program_text import program_key
from agentlab.selection import fit_options, rounded
from agentlab.trace import Record
from agentlab.types import ALL, GroupParams, Rows, RunConfig

Told = dict[str, Any]


@dataclass(frozen=True)
class Cheat:
    """What is submitted, and the reason for which it is refused at the door ("door"), rejected or held."""

    name: str
    make: Callable[[], bytes]
    reason: str
    where: str = "rejected"


CHEATS: list[Cheat] = []


def cheat(reason: str, where: str = "rejected") -> Callable[[Callable[[], bytes]], Callable[[], bytes]]:
    def noted(make: Callable[[], bytes]) -> Callable[[], bytes]:
        CHEATS.append(Cheat(make.__name__, make, reason, where))
        return make

    return noted


def tampered(change: Callable[[list[Record]], list[Record] | None], *seeds: int) -> bytes:
    """An honest submission whose first trace is changed and sealed again."""
    told = packed(*(seeds or (0,)))
    edited(told, change)
    return sealed(told)


def settings(**changes: object) -> bytes:
    """An honest submission whose settings are changed, in the trace as well."""
    told = packed(0)
    told["runs"][0]["config"] |= changes
    told["declared"] = [told["runs"][0]["config"]["seed"]]
    edited(told, lambda records: records[0].update(changes))
    return sealed(told)


def fitted(formula: str, rows: Rows | None = None) -> tuple[GroupParams, int, int, str]:
    """What an honest fit of a formula would put on record: parameters, how many, nodes, key."""
    taken = intake_of(RunConfig(task="tiny", robust="none"))
    law = parse(formula, ("n",))
    fit = fit_rows(law, taken.rows if rows is None else rows, fit_options(taken.task, 48, 0))
    return rounded(fit), law.n_params, law.complexity, law.key


def with_law(formula: str, rows: Rows | None = None) -> bytes:
    """A submission whose trace has another formula in the place of the law wherever it stands, fitted in earnest."""
    params, n_params, complexity, key = fitted(formula, rows)
    told = packed(0)

    def change(records: list[Record]) -> list[Record]:
        law = of_kind(records, "law")
        for record in records:
            if record["kind"] == "holdout":
                record["holdout"] = None
            if record.get("formula") == law["formula"] and record is not law:
                record.update(formula=formula, complexity=complexity, n_params=n_params)
                record.update({"key": key} if "key" in record else {})
        law.update(formula=formula, key=key, complexity=complexity, n_params=n_params, params=params)
        return records

    edited(told, change)
    told["law"] |= {"formula": formula, "key": key}
    return sealed(told)


# ---- numbers ----


@cheat("wrong numbers")
def a_better_error_on_the_holdout_is_claimed() -> bytes:
    return tampered(lambda records: of_kind(records, "holdout")["holdout"].update(are=1e-7, r2=0.999999))


@cheat("wrong numbers")
def a_parameter_is_nudged_towards_the_holdout() -> bytes:
    return tampered(lambda records: of_kind(records, "law")["params"][ALL]["loss"].update(E=1.5))


@cheat("wrong numbers")
def the_rows_of_the_holdout_are_in_the_fit() -> bytes:
    taken = intake_of(RunConfig(task="tiny", robust="none"))
    files = [Path(f"tasks/tiny/data/{name}.csv") for name in ("train", "holdout")]
    both = [read_columns(file, {"n": "number", "loss": "number"}) for file in files]
    n, loss = (np.concatenate([np.asarray(r.values[c], dtype=np.float64) for r in both]) for c in ("n", "loss"))
    size = len(n)
    rows = Rows({"n": n}, {"loss": loss}, np.full(size, ALL), np.ones(size), n, np.arange(size))
    assert size > len(taken.rows)
    return with_law("E + A*n**a", rows)


@cheat("wrong numbers")
def fewer_parameters_are_counted_than_there_are() -> bytes:
    return tampered(lambda records: of_kind(records, "law").update(n_params=1))


@cheat("wrong numbers")
def the_key_is_of_another_law_so_that_its_credit_is_ours() -> bytes:
    def change(records: list[Record]) -> None:
        law = of_kind(records, "law")
        for record in records:
            if record is law or (record["kind"] == "entry" and record["id"] == law["entry"]):
                record["key"] = "?*n**?"

    return tampered(change)


@cheat("wrong numbers")
def the_law_is_none_that_the_runs_end_with() -> bytes:
    told = packed(0)
    told["law"] = {"formula": "E + A/n**0.3", "program": False, "key": parse("E + A/n**0.3", ("n",)).key}
    return sealed(told)


@cheat("wrong numbers")
def there_are_parameters_of_a_group_that_has_no_rows() -> bytes:
    def change(records: list[Record]) -> None:
        params = of_kind(records, "law")["params"]
        params["sealed"] = params[ALL]

    return tampered(change)


@cheat("not of the form", "door")
def a_number_is_sent_in_place_of_a_law() -> bytes:
    return sealed(packed(0) | {"holdout_are": 0.0})


@cheat("not of the form", "door")
def the_submission_says_itself_that_it_is_verified() -> bytes:
    return sealed(packed(0) | {"level": "confirmed"})


# ---- nan tricks ----


@cheat("no JSON", "door")
def nan_stands_where_json_has_no_word_for_it() -> bytes:
    return sealed(packed(0)).replace(b'"seconds": ', b'"seconds": NaN, "was": ', 1)


@cheat("not finite")
def a_parameter_is_nan_so_that_no_error_is_larger() -> bytes:
    return tampered(lambda records: of_kind(records, "law")["params"][ALL]["loss"].update(E=float("nan")))


@cheat("not finite")
def the_law_says_nan_where_it_would_be_wrong() -> bytes:
    return with_law("E + A*log(200000 - n)")


@cheat("wrong numbers")
def the_claimed_error_is_nan() -> bytes:
    return tampered(lambda records: of_kind(records, "holdout")["holdout"].update(are=float("nan")))


# ---- laws that are tables ----


@cheat("memorised constants")
def a_table_of_constants_is_the_law() -> bytes:
    bumps = " + ".join(f"0.{37 * i % 1000:03d}*exp(-((log(n) - {4.6 + 0.3 * i:.1f})*9)**2)" for i in range(1, 24))
    return with_law(f"E + {bumps}")


@cheat("memorised constants")
def constants_that_were_fitted_stand_in_the_formula() -> bytes:
    return with_law("E + A*n**a + 0.00123*n**-0.7654")


@cheat("memorised")
def every_constant_stands_in_the_formula() -> bytes:
    return with_law("1.5 + 4/n**0.3 + 0*E")


@cheat("too many parameters")
def the_law_has_more_parameters_than_the_task_allows() -> bytes:
    return with_law("E + A*n**a + B*n**b")


@cheat("too many parameters")
def the_settings_allow_themselves_more_parameters() -> bytes:
    return settings(max_params=9)


@cheat("in other units", "held")
def the_law_holds_in_one_unit_only() -> bytes:
    return with_law("E + A/(n + 10)**a")


PROGRAM = """
import numpy as np

def fit(X, y):
    return np.array([np.exp(np.log(y).mean())])

def law(X, params):
    BODY
"""


def with_program(body: str) -> bytes:
    text = PROGRAM.replace("BODY", body)
    key = program_key(text)
    told = packed(0)

    def change(records: list[Record]) -> None:
        law = of_kind(records, "law")
        formula = law["formula"]
        for record in records:
            if record.get("formula") == formula:
                record["formula"] = text
                record.update({"key": key} if "key" in record else {})
        law.update(program=True)

    edited(told, change)
    told["law"] = {"formula": text, "program": True, "key": key}
    return sealed(told)


@cheat("memorised constants")
def a_program_looks_its_answers_up() -> bytes:
    table = ", ".join(f"{1.5 + i / 977:.6f}" for i in range(40))
    return with_program(f"return params[0]*np.interp(X[:, 0], np.geomspace(100, 1e5, 40), [{table}])")


@cheat("memorised constants")
def a_program_hides_its_table_in_a_text() -> bytes:
    return with_program(f"return params[0]*np.array([float(c) for c in '{'31415926535' * 20}'])[: len(X)]")


# ---- traces ----


@cheat("digest", "door")
def the_trace_was_edited_after_it_was_sealed() -> bytes:
    told = packed(0)
    edited(told, lambda records: of_kind(records, "entry").update(objective=-1e6))
    return json.dumps(told).encode()


@cheat("rerun differs")
def the_trace_was_edited_and_sealed_again() -> bytes:
    return tampered(lambda records: of_kind(records, "entry").update(mdl=-100.0))


@cheat("rerun differs")
def the_run_of_one_seed_is_declared_as_another() -> bytes:
    return settings(seed=7)


@cheat("trace edited")
def candidates_are_left_out_of_the_trace() -> bytes:
    return tampered(lambda records: [r for r in records if r.get("id") != 1])


@cheat("trace edited")
def candidates_are_in_another_order() -> bytes:
    return tampered(lambda records: [records[0], records[2], records[1], *records[3:]])


@cheat("trace edited")
def the_law_is_none_of_the_finalists() -> bytes:
    def change(records: list[Record]) -> list[Record]:
        law = of_kind(records, "law")
        return [r for r in records if not (r["kind"] == "finalist" and r["formula"] == law["formula"])]

    return tampered(change)


@cheat("trace edited")
def the_law_is_none_of_the_candidates() -> bytes:
    return tampered(lambda records: of_kind(records, "law").update(formula="E + A/n**0.3"))


@cheat("trace edited")
def a_second_law_follows_the_first() -> bytes:
    return tampered(lambda records: [*records, of_kind(records, "law")])


@cheat("trace edited")
def candidates_are_tried_after_the_stop() -> bytes:
    def change(records: list[Record]) -> list[Record]:
        late = of_kind(records, "entry") | {"id": sum(r["kind"] == "entry" for r in records)}
        return [*records[:-2], late, *records[-2:]]

    return tampered(change)


@cheat("trace edited")
def a_line_is_written_by_hand() -> bytes:
    told = packed(0)
    told["runs"][0]["trace"] = told["runs"][0]["trace"].replace('"kind":"stop"', '"kind": "stop"')
    return sealed(told)


@cheat("settings")
def the_settings_name_another_seed_than_the_trace() -> bytes:
    told = packed(0)
    told["runs"][0]["config"]["seed"] = 3
    told["declared"] = [3]
    return sealed(told)


@cheat("settings")
def the_budget_was_larger_than_is_said() -> bytes:
    told = packed(0)
    told["runs"][0]["config"]["budget"]["candidates"] = 2
    return sealed(told)


# ---- runs ----


@cheat("not of the form", "door")
def one_run_is_sent_as_two_seeds() -> bytes:
    told = packed(0)
    told["runs"] *= 2
    told["declared"] = [0, 1]
    return sealed(told)


@cheat("not of the form", "door")
def a_seed_is_true_and_so_is_one() -> bytes:
    told = packed(1)
    told["runs"][0]["config"]["seed"] = True
    return sealed(told)


@cheat("not finite")
def a_parameter_is_larger_than_any_float() -> bytes:
    return tampered(lambda records: of_kind(records, "law")["params"][ALL]["loss"].update(E=10**400))


@cheat("not of the form", "door")
def a_trace_holds_half_a_character() -> bytes:
    told = packed(0)
    told["runs"][0]["trace"] = told["runs"][0]["trace"].replace("mutate", "mut\ud800te")
    return sealed(told)


@cheat("not of the form", "door")
def a_run_is_sent_that_was_not_declared() -> bytes:
    return sealed(packed(0) | {"declared": [1]})


@cheat("settings")
def runs_of_two_methods_are_one_submission() -> bytes:
    told = packed(0, 1)
    told["runs"][1]["config"]["patience"] = 9
    edited(told, lambda records: records[0].update(patience=9), run=1)
    return sealed(told)


@cheat("settings")
def the_law_is_said_to_be_fitted_otherwise() -> bytes:
    told = packed(0)
    told["fit"]["robust"] = "huber"
    return sealed(told)


@cheat("settings")
def the_proposer_is_code_of_ones_own() -> bytes:
    return settings(proposer="evil.module:Proposer")


@cheat("settings")
def a_program_is_to_run_unconfined() -> bytes:
    return settings(sandbox="local")


# ---- rows ----


@cheat("other rows", "door")
def other_rows_were_searched() -> bytes:
    told = packed(0)
    told["manifest"]["rows"] = "0" * 64
    return sealed(told)


@cheat("other rows")
def the_trace_is_of_more_rows_than_the_task_has() -> bytes:
    return tampered(lambda records: records[0].update(rows=48))


@cheat("no such task", "door")
def the_task_is_one_that_the_board_does_not_have() -> bytes:
    return sealed(packed(0) | {"task": "mine"})


@cheat("not of the form", "door")
def the_task_is_a_path() -> bytes:
    return sealed(packed(0) | {"task": "../tiny"})
