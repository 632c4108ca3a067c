"""The leaderboard as everybody sees it: a row a law, best first, laws that are one family of functions merged."""

from __future__ import annotations

from typing import Any

from agentlab.leaderboard_board import Row, open_board
from agentlab.leaderboard_records import LEVELS

__all__ = ["board_rows", "rows_of"]

MEASURED = (
    "holdout_are", "holdout_r2", "holdout_se", "reference_are", "difference", "coverage", "regret", "n_params",
    "complexity", "identifiable", "usd", "seconds", "flops", "looks", "second_are",
)  # fmt: skip
"""What the board measured; None before it did."""


VERIFIED = LEVELS[LEVELS.index("replayed") :]
"""Levels at which the runs are known to come out as they were submitted."""


def board_rows(url: str | None = None, task: str | None = None) -> list[dict[str, Any]]:
    """The rows of a board, best first: by the mean error on the hold-out over all declared runs.

    `url` is as in leaderboard_store.url_of: None means $AGENTLAB_BOARD, else a file in the user's data folder. Laws of
    one task with one canonical key are one row: the first submission that is verified has it, without one the first
    that is scored, and `merged` names the others. What is verified stands before what is not.
    Rejected submissions are in the incident log only.

    Raises:
        UsageError, BackendError: there is no such board.
    """
    with open_board(url) as board:
        return rows_of(board.rows(task))


def rows_of(submissions: list[Row]) -> list[dict[str, Any]]:
    """The same for submissions in the order in which they came."""
    families: dict[tuple[str, str, str], list[Row]] = {}
    for row in submissions:
        if row.level != LEVELS[0]:
            families.setdefault((row.task, row.version, row.key), []).append(row)
    found = []
    for rows in families.values():
        scored = [r for r in rows if "holdout_are" in r.figures]
        first = next((r for r in scored if r.level in VERIFIED), (scored or rows)[0])
        found.append(told_of(first) | {"merged": [r.id for r in rows if r.id != first.id]})
    return sorted(found, key=_rank)


def told_of(row: Row) -> dict[str, Any]:
    """One submission as a row of the board, with nothing merged into it."""
    told = {
        "id": row.id,
        "task": row.task,
        "task_version": row.version,
        "law": row.law,
        "latex": row.figures.get("latex", ""),
        "key": row.key,
        "method": row.method,
        "submitter": row.submitter,
    }
    told |= {name: row.figures.get(name) for name in MEASURED}
    return told | {
        "runs_declared": row.declared,
        "runs_finished": row.finished,
        "level": row.level,
        "date": row.received,
        "merged": [],
        "note": row.reason or row.note,
    }


def _rank(row: dict[str, Any]) -> tuple[str, bool, bool, float, float, str]:
    """By task; the verified first, then those that are scored; the smaller error first, of equal ones the larger R2."""
    error, square = row["holdout_are"], row["holdout_r2"]
    none = error is None or square is None
    figures = (0.0, 0.0) if none else (float(error), -float(square))
    return (row["task"], none, row["level"] not in VERIFIED, *figures, row["date"])
