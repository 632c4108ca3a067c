"""Verifies a submission step by step: its form, a refit, scores on the hold-out, reruns, and a second hold-out."""

from __future__ import annotations

import fcntl
import math
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from agentlab import __version__
from agentlab.errors import EvaluationError
from agentlab.files import write_json
from agentlab.leaderboard_board import Board, Row
from agentlab.leaderboard_records import LEVELS, RefusedError, Submission, agreed
from agentlab.leaderboard_sealed import Sealed, open_sealed, scored
from agentlab.leaderboard_tasks import Known, known_task
from agentlab.leaderboard_trace import checked_run, claimed, is_finite
from agentlab.leaderboard_work import CONFIG, FEATURES, LAW, PARTS, TRACE, Worker
from agentlab.metrics import digits
from agentlab.trace import Record, number
from agentlab.types import RunConfig

__all__ = ["SECOND_LOOKS", "second_file", "verify", "waiting"]

SECOND_LOOKS = 3
"""Looks at a task's second hold-out that a submitter has, for all submissions together."""

WORST_ARE, WORST_R2 = 1.0, -1.0
"""What a declared run without a result counts as, and the most that one run can count: a law that says 0 errs by 1."""

CLAIM = 1e-3
"""Share by which a claimed error on the hold-out may differ from the one that the board finds."""

WORSE = 3.0
"""Times that the error on the second hold-out may be the one on the first, and a law still counts as confirmed."""


@dataclass(frozen=True)
class _Case:
    """A submission under verification: its task, and by seed the settings, the trace's records and a folder."""

    row: Row
    one: Submission
    known: Known
    configs: Mapping[int, RunConfig]
    records: Mapping[int, Sequence[Record]]
    place: Path
    seed: int

    def folder(self, seed: int) -> Path:
        return self.place / str(seed)


def verify(board: Board, name: str, worker: Worker) -> Row:
    """Verify a submission as far as it goes, and the row that comes of it; a second call does what is left.

    What is not as it claims to be is rejected, with an entry in the incident log. What cannot be verified here stays
    at its level, and the row's `reason` says why.
    """
    row = board.row(name)
    with _claimed(board, row.id) as place:
        row = board.row(row.id)
        if row.level in (LEVELS[0], LEVELS[-1]):
            return row
        try:
            _verify(board, row, worker, place)
        except RefusedError as error:
            board.reject(row, error)
        except EvaluationError as error:
            now = board.row(row.id)
            board.advance(row.id, now.level, now.figures, str(error))
    return board.row(row.id)


def waiting(board: Board) -> list[str]:
    """The ids of submissions that may go further: those that nothing holds."""
    rows = [r for r in board.rows() if not r.reason]
    pinned = {task: board.pinned(task) for task in {r.task for r in rows}}
    early = ("received", "refitted", "scored")
    return [r.id for r in rows if r.level in early or (r.level == "replayed" and pinned[r.task] is not None)]


@contextmanager
def _claimed(board: Board, name: str) -> Iterator[Path]:
    """A folder for one verification at a time, gone at the end."""
    work = board.home / "work"
    work.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (work / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        place = work / name
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        try:
            yield place
        finally:
            shutil.rmtree(place, ignore_errors=True)


def _verify(board: Board, row: Row, worker: Worker, place: Path) -> None:
    case = _opened(board, row, place)
    if row.level == "replayed":  # there was no second hold-out when it came so far, or no look left
        _confirm(board, case, worker, dict(row.figures))
        return
    first = open_sealed(board.home, case.known, case.known.sealed)
    found = _judged(case, worker, first)
    law = found[case.seed]
    figures = {name: law[name] for name in ("latex", "n_params", "complexity", "identifiable")} | _cost(case)
    if row.level == "received":
        board.advance(row.id, "refitted", figures)
    looks = board.look(row, "first")
    told = scored(first, place / "score", {seed: case.folder(seed) / PARTS for seed in found})
    _check_claims(case, told["runs"])
    figures |= _summary(case, found, told) | {"looks": looks}
    board.advance(row.id, "scored", figures)
    held = next((str(f["held"]) for f in found.values() if f["held"]), "") or _rerun(case, worker)
    if held:
        board.advance(row.id, "scored", figures, held)
        return
    board.advance(row.id, "replayed", figures)
    _confirm(board, case, worker, figures)


def _opened(board: Board, row: Row, place: Path) -> _Case:
    """The submission with all that can be checked of it without fitting anything."""
    one = board.payload(row.id)
    known = _still_known(row)
    checked = {int(str(run.seed)): checked_run(run, known.task, len(known.searched)) for run in one.runs}
    records = {seed: both[1] for seed, both in checked.items()}
    laws = {seed: _law(records[seed]) for seed in records}
    law = agreed(laws, one.declared)
    if (law.formula, law.key, law.program) != (one.law.formula, one.law.key, one.law.program):
        raise RefusedError("wrong numbers", "the law is not the one that most of the runs end with")
    configs = {seed: both[0] for seed, both in checked.items()}
    _check_method(list(configs.values()), one, known)
    case = _Case(row, one, known, configs, records, place, law.seed)
    for run, (seed, config) in zip(one.runs, configs.items(), strict=True):
        folder = case.folder(seed)
        folder.mkdir()
        write_json(folder / CONFIG, asdict(config))
        (folder / TRACE).write_bytes(run.trace.encode())
        told = laws[seed]
        write_json(folder / LAW, {
            "formula": told["formula"], "program": bool(told.get("program", False)), "params": told["params"],
            "key": told["key"],
        })  # fmt: skip
    return case


def _still_known(row: Row) -> Known:
    """The task of a submission. Raises EvaluationError where it is no longer what it was when that came."""
    try:
        known = known_task(row.task)
    except RefusedError as error:
        raise EvaluationError(str(error)) from None
    if known.version != row.version:
        raise EvaluationError(f"{row.task} is of version {known.version} now; it was {row.version} when this came")
    return known


def _law(records: Sequence[Record]) -> Record:
    return next(r for r in records if r["kind"] == "law")


def _check_method(configs: Sequence[RunConfig], one: Submission, known: Known) -> None:
    """All runs are of one method, and are fitted as the submission says."""
    ours = ("seed", "out", "workers", "base_url", "address", "engine", "model_seconds")
    alike = [{k: v for k, v in asdict(c).items() if k not in ours} for c in configs]
    if any(other != alike[0] for other in alike[1:]):
        raise RefusedError("settings", "the runs are not of one method: they differ in more than their seed")
    fit = (configs[0].residual or known.task.residual, configs[0].robust or known.task.robust)
    if fit != (one.fit.residual, one.fit.robust):
        raise RefusedError("settings", "the law is said to be fitted otherwise than its runs were")


def _judged(case: _Case, worker: Worker, sealed: Sealed) -> dict[int, dict[str, Any]]:
    found = {}
    for seed in case.configs:
        shutil.copy(sealed.features, case.folder(seed) / FEATURES)
        found[seed] = worker.ask("judge", case.folder(seed), twin=int(case.row.id[:8], 16))
    return found


def _check_claims(case: _Case, runs: Mapping[str, Mapping[str, Any]]) -> None:
    for seed, records in case.records.items():
        said, own = claimed(records), number(runs[str(seed)]["are"])
        if said is not None and not (said == own or abs(said - own) <= CLAIM * abs(own) + 1e-9):
            raise RefusedError(
                "wrong numbers", f"seed {seed} claims an error of {said:.4g} on the hold-out; the board finds another"
            )  # fmt: skip


def _summary(case: _Case, found: Mapping[int, Mapping[str, Any]], told: Mapping[str, Any]) -> dict[str, Any]:
    """The figures of all declared runs together; one without a result counts as the worst."""
    runs = {seed: told["runs"][str(seed)] for seed in found}
    errors = [min(number(runs[s]["are"]), WORST_ARE) if s in runs else WORST_ARE for s in case.one.declared]
    squares = [max(number(runs[s]["r2"]), WORST_R2) if s in runs else WORST_R2 for s in case.one.declared]
    beside = told["reference_refitted"] or told["reference"]
    reference = None if beside is None else number(beside["are"])
    covered = [r["coverage"] for r in runs.values()]
    regrets = [found[s]["regret"] for s in runs]
    error = fmean(errors)
    return {
        "holdout_are": digits(error),
        "holdout_se": digits(stdev(errors) / math.sqrt(len(errors))) if len(errors) > 1 else None,
        "holdout_r2": digits(fmean(squares)),
        "reference_are": reference,
        "difference": None if reference is None else digits(error - reference),
        "coverage": None if None in covered else digits(fmean(covered)),
        "regret": None if None in regrets else digits(fmean(regrets)),
        "runs": {
            str(s): {k: runs[s][k] for k in ("are", "r2", "coverage")}
            | {"law": _law(case.records[s])["formula"], "key": _law(case.records[s])["key"]}
            for s in runs
        },
    }


def _cost(case: _Case) -> dict[str, float]:
    """What the runs came to: money and FLOPs as their traces say, seconds as their owner says."""
    flat = [r for records in case.records.values() for r in records]
    usd = [_amount(r.get("usd")) for r in flat if r["kind"] in ("decision", "reply", "lost")]
    flops = [_amount(r.get("flops")) for r in flat if r["kind"] == "measured"]
    return {
        "usd": _total(usd),
        "flops": _total(flops),
        "seconds": _total([run.seconds for run in case.one.runs]),
    }


def _total(amounts: Sequence[float]) -> float:
    try:
        return digits(math.fsum(amounts))
    except OverflowError:
        raise RefusedError("not finite", "what the runs are said to cost adds up to no number") from None


def _amount(value: object) -> float:
    return max(float(value), 0.0) if isinstance(value, int | float) and is_finite(value) else 0.0


def _rerun(case: _Case, worker: Worker) -> str:
    """Run every declared run again that there is, and the method on a twin of the task; why it is held, or ""."""
    any_config = case.configs[case.seed]
    if any_config.experiments:
        return "its runs were made by a loop over experiments, which the board does not make again"
    if any_config.budget.seconds is not None and not any_config.model:
        return "its runs end by the clock, so that they do not come out alike twice; give budget.candidates instead"
    for seed in case.configs:
        try:
            worker.ask("rerun", case.folder(seed))
        except RefusedError as error:
            if case.one.manifest.agentlab == __version__:
                raise RefusedError(error.reason, f"seed {seed}: {error.found}") from None
            return f"seed {seed} was run with agentlab {case.one.manifest.agentlab}, and comes out differently here"
    if any_config.model or case.known.task.reference is None:
        return ""
    r2 = worker.ask("twin", case.folder(case.seed), seed=int(case.row.id[:8], 16))["r2"]
    if r2 is not None and not number(r2) > 0:
        return "on a twin of the task, whose law is known, the same method predicts no better than a mean"
    return ""


# ---- the second hold-out ----


def second_file(board: Board, task: str) -> Path:
    """Where the second hold-out of a task lies, which only the board's owner can read."""
    return board.home / "second" / f"{task}.csv"


def _confirm(board: Board, case: _Case, worker: Worker, figures: dict[str, Any]) -> None:
    """Score once more on rows that nobody has seen; each submitter has SECOND_LOOKS looks at them."""
    row, pinned = case.row, board.pinned(case.row.task)
    if pinned is None:
        return
    why = f"the looks of {row.submitter} at the second hold-out are used up ({SECOND_LOOKS})"
    used = board.looks(row.submitter, row.task, "second")
    if used >= SECOND_LOOKS and not board.has_looked(row.id, "second"):
        board.advance(row.id, "replayed", figures, why)
        return
    sealed = open_sealed(board.home, case.known, str(second_file(board, row.task)), pinned)
    found = _judged(case, worker, sealed)
    looks = board.look(row, "second", SECOND_LOOKS)
    if looks is None:  # another of this submitter's was verified meanwhile, and had the last one
        board.advance(row.id, "replayed", figures, why)
        return
    figures["second_looks"] = looks
    told = scored(sealed, case.place / "second", {seed: case.folder(seed) / PARTS for seed in found})
    again = _summary(case, found, told)
    figures["second_are"] = again["holdout_are"]
    if again["holdout_are"] > WORSE * figures["holdout_are"] + CLAIM:
        first, second = figures["holdout_are"], again["holdout_are"]
        why = f"on the second hold-out it errs by {second:.3g}, on the first by {first:.3g}"
        board.advance(row.id, "replayed", figures, why)
        board.incident(row, RefusedError("second hold-out", why))
        return
    board.advance(row.id, "confirmed", figures)
