"""Computes one answer for the lab: `python -m agentlab.tools._lab_work`, a request as JSON in, one line of JSON out.

A process of its own, so that an answer that nobody waits for any more can be stopped, and two clients compute side by
side. The verbs are those of the command line, on the same modules: fit, audit, allocate, compare, predict.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from agentlab.tools._compare import Judge, compared

from agentlab import selection
from agentlab.audit import audit as examine
from agentlab.audit import plan as choose
from agentlab.audit_files import record, write
from agentlab.audit_words import AuditWords, audit_words, beside, run_words, settings_of, with_reference
from agentlab.csv_columns import read_columns
from agentlab.csv_header import Kind, TableError
from agentlab.errors import AgentlabError, EvaluationError, nearest
from agentlab.fitting import bootstrap, fit_rows
from agentlab.law import Law, parse
from agentlab.program_text import refuse_program
from agentlab.run_rows import Intake, read_rows
from agentlab.table import intake
from agentlab.trace import Record, dump, read
from agentlab.types import ALL, Budget, FloatArray, RunConfig, StrArray
from agentlab.words import UsageError

STARTS = 48
DRAWS = 200
"""Bootstrap draws of a fit's intervals, as `agentlab fit` takes them."""


@dataclass(frozen=True)
class Request:
    """What is asked: `words` as on the command line, of the rows they name or of those of the run in `folder`."""

    verb: str
    words: Sequence[str] = ()
    folder: str = ""
    laws: Sequence[str] = ()
    out: str = ""
    points: Mapping[str, Sequence[float | str]] | None = None
    table: str = ""


@dataclass(frozen=True)
class Case:
    """The settings, the rows and the laws of a request."""

    words: AuditWords
    taken: Intake
    laws: Sequence[Law]


def law_of(folder: Path, verb: str) -> Record:
    """The record of the law that a run believes; a program is refused. Raises UsageError where there is none yet."""
    trace = folder / "trace.jsonl"
    found = next((r for r in (read(trace) if trace.exists() else ()) if r["kind"] == "law"), None)
    if found is None or found["entry"] is None:
        raise UsageError(f"{folder.name} has no law yet; wait for it with run_get")
    refuse_program(found, verb, folder.name)
    return found


def case_of(asked: Request, *, every: bool = True) -> Case:
    """The case of a request; without a law the run's own, or else the task's published one.

    Raises:
        AgentlabError: one line that says what is wrong and what to write.
    """
    laws = list(asked.laws)
    if asked.folder:
        folder = Path(asked.folder)
        given = run_words(asked.words, asked.verb, _config_of(folder))
        taken = Intake(*read_rows(folder, every=every))
        laws = laws or [law_of(folder, f"law_{asked.verb}")["formula"]]
    else:
        given = audit_words(asked.words, asked.verb)
        taken = intake(given)
        reference = taken.task.reference
        laws = laws or ([reference.formula] if reference is not None else [])
    if not laws:
        raise UsageError('law: no formula; write one, such as "E + A/N**a"')
    task = with_reference(taken.task, given.reference)
    return Case(given, Intake(task, taken.rows, None, taken.notes), [parse(law, task.names) for law in laws])


def _config_of(folder: Path) -> RunConfig:
    """The settings of a run as far as an audit needs them."""
    told = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return RunConfig(**{k: v for k, v in told.items() if k not in ("budget", "approve")}, budget=Budget())


def fit(asked: Request) -> dict[str, Any]:
    """One formula fitted to every row, with 90% intervals by resampling training runs."""
    case = case_of(asked)
    law, task, rows = case.laws[0], case.taken.task, case.taken.rows
    options = selection.fit_options(task, STARTS, case.words.seed)
    found = fit_rows(law, rows, options)
    if not found.ok:
        raise EvaluationError(f"{law.text} does not fit: {found.reason}")
    spread = bootstrap(law, rows, found, draws=DRAWS, seed=case.words.seed, options=options)
    quality = [
        {"group": g, "target": t, "n": f.n, "residual_scale": f.sigma, "converged": f.converged,
         "condition": f.condition}
        for (g, t), f in found.fits.items()
    ]  # fmt: skip
    figures = {"formula": law.text, "latex": law.latex(), "key": law.key, "n_params": law.n_params}
    return figures | {
        "params": selection.rounded(found), "intervals": spread, "fits": quality, "notes": list(case.taken.notes),
    }  # fmt: skip


def audit(asked: Request) -> dict[str, Any]:
    """The Law Card, written into `out`, and what it says."""
    case = case_of(asked)
    task, rows = case.taken.task, case.taken.rows
    known = beside(case.words, task, len(rows))
    card, examined = examine(case.laws[0], task, rows, settings_of(case.words), known)
    files, missing = write(card, examined, Path(asked.out))
    return record(card) | {"files": [Path(f).name for f in files], "notes": [*case.taken.notes, *card.notes, *missing]}


def allocate(asked: Request) -> dict[str, Any]:
    """The best configuration at a compute."""
    case = case_of(asked)
    return asdict(choose(case.laws[0], case.taken.task, case.taken.rows, settings_of(case.words)))


def compare(asked: Request) -> dict[str, Any]:
    """Laws side by side on the same hidden rows, the best first."""
    case = case_of(asked, every=False)
    problem = selection.problem(case.taken.task, case.taken.rows)
    options = replace(selection.fit_options(case.taken.task, STARTS, case.words.seed), thorough=False)
    judge = Judge(problem, options, case.words.seed)
    laws = list({law.text: law for law in case.laws}.values())
    scored = [judge.scores(law) for law in laws]
    found: dict[str, Any] = compared(laws, scored, judge).model_dump(mode="json")
    return found


def predict(asked: Request) -> dict[str, Any]:
    """What the run's law says at points: as many values a target as there are points."""
    folder = Path(asked.folder)
    found = law_of(folder, "law_predict")
    task, _ = read_rows(folder)
    columns, group = _points(asked, task.names, task.group)
    for name in np.unique(group):
        if str(name) not in found["params"]:
            raise UsageError(f"group {str(name)!r} was not in the run; {nearest(str(name), list(found['params']))}")
    values = parse(found["formula"], task.names).predict(columns, group, found["params"])
    given = {k: v.tolist() for k, v in columns.items()} | ({task.group: group.tolist()} if task.group else {})
    return {
        "by": "law", "formula": found["formula"], "columns": given | {t: values[t].tolist() for t in task.targets},
    }  # fmt: skip


def _points(asked: Request, names: Sequence[str], group: str | None) -> tuple[dict[str, FloatArray], StrArray]:
    """The columns (n,) and the groups (n,) of the points. Raises TableError where a value is missing or no number."""
    wanted = [*names, *([group] if group else [])]
    told: Mapping[str, Any]
    if asked.table:
        kinds: dict[str, Kind] = {**dict.fromkeys(names, "number"), **({group: "text"} if group else {})}
        told = read_columns(Path(asked.table), kinds).values
    else:
        told = asked.points or {}
    for name in wanted:
        if name not in told:
            raise TableError(f"points: no column {name!r}; give {', '.join(wanted)}, one value a point")
    if more := [name for name in told if name not in wanted]:
        raise TableError(f"points: {more[0]!r} is no column of the law; give {', '.join(wanted)} alone")
    if len({len(told[name]) for name in wanted}) != 1:
        raise TableError(f"points: the columns {', '.join(wanted)} differ in length; give one value a point")
    columns: dict[str, FloatArray] = {}
    for name in names:
        try:
            columns[name] = np.asarray(told[name], dtype=np.float64)
        except (TypeError, ValueError):
            raise TableError(f"points: column {name!r} holds a text; write numbers") from None
        bad = np.flatnonzero(~np.isfinite(columns[name]))
        if len(bad):
            raise TableError(f"points: column {name!r} holds no number at point {bad[0] + 1}; write one")
    n = len(columns[names[0]])
    return columns, np.asarray(told[group]).astype(np.str_) if group else np.full(n, ALL)


VERBS: Mapping[str, Callable[[Request], dict[str, Any]]] = {
    "fit": fit,
    "audit": audit,
    "allocate": allocate,
    "compare": compare,
    "predict": predict,
}


def main() -> int:
    """Answer the request on standard input; returns the exit code."""
    try:
        asked = Request(**json.load(sys.stdin))
        sys.stdout.write(dump(VERBS[asked.verb](asked)).decode())
    except AgentlabError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
