"""What a submission to the leaderboard is: a law, how it is fitted, the traces of all declared runs, and digests."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from agentlab.types import AgentlabError, Rows, RunConfig, Task

__all__ = [
    "LEVELS",
    "Manifest",
    "RefusedError",
    "Run",
    "Submission",
    "digest_of",
    "fingerprint",
    "read_submission",
    "version",
]

LEVELS = ("rejected", "received", "refitted", "scored", "replayed", "confirmed")
"""How far a submission has been verified, from nothing to everything."""

TOKEN = "AGENTLAB_BOARD_TOKEN"  # noqa: S105 -- the name of the variable, not a token
"""The environment variable with the token of a board: of who submits, and of who serves."""

MOST_BYTES = 32 << 20
"""Bytes of a submission as JSON."""
MOST_RUNS = 64
"""Runs that a submission may declare."""
MOST_TRACE = 16 << 20
"""Characters of one trace."""

NAME = r"[A-Za-z0-9][A-Za-z0-9_.@ -]{0,63}"
"""What a submitter's name may be."""


class RefusedError(AgentlabError):
    """A submission that is not taken, or is rejected: `reason` is a short fixed phrase, `found` what was found."""

    def __init__(self, reason: str, found: str = "") -> None:
        self.reason = reason
        self.found = shown(found)
        super().__init__(f"{reason}: {self.found}" if found else reason)


def shown(text: str) -> str:
    """Text of somebody else's on one line, without anything that a terminal or a database would stumble over."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Run(_Part):
    """One finished run of a submission: its settings, its whole trace, and the seconds it says it took."""

    config: dict[str, Any]
    trace: Annotated[str, Field(max_length=MOST_TRACE)]
    seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0

    @property
    def seed(self) -> object:
        """The seed that its settings name."""
        return self.config.get("seed")


class Told(_Part):
    """The law that a submission is for, as it stands in the traces."""

    formula: Annotated[str, Field(min_length=1, max_length=1 << 16)]
    program: bool = False
    key: Annotated[str, Field(max_length=1 << 16)]


class Fitting(_Part):
    """How the law's parameters were fitted, so that they can be fitted again."""

    starts: Literal[48] = 48
    residual: Literal["plain", "log"]
    robust: Literal["none", "huber", "soft_l1"]


class Manifest(_Part):
    """Digests of every part, the version that made them, and the digest of the rows that were searched."""

    agentlab: Annotated[str, Field(max_length=64)]
    rows: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    files: dict[str, str]


class Submission(_Part):
    """Everything that is sent to the leaderboard; no number in it is believed."""

    form: Literal[1]
    """The version of the form."""
    submitter: Annotated[str, Field(pattern=f"^{NAME}$")]
    note: Annotated[str, Field(max_length=500)] = ""
    task: Annotated[str, Field(pattern="^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$")]
    law: Told
    fit: Fitting
    declared: Annotated[list[Annotated[int, Field(ge=0, lt=1 << 63)]], Field(min_length=1, max_length=MOST_RUNS)]
    runs: Annotated[list[Run], Field(min_length=1, max_length=MOST_RUNS)]
    manifest: Manifest


def read_submission(text: bytes) -> tuple[str, Submission]:
    """The id of a submission, which is the digest of what it says, and the submission, checked to be whole.

    Raises:
        RefusedError: it is too long, no JSON, not of the form, or a digest is not that of what it names.
    """
    if len(text) > MOST_BYTES:
        raise RefusedError("too large", f"{len(text)} bytes; send at most {MOST_BYTES}")
    try:
        told = json.loads(text, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise RefusedError("no JSON", " ".join(str(error).split())[:200]) from None
    return submission_of(told)


def submission_of(told: object) -> tuple[str, Submission]:
    """The same for what was read already."""
    try:
        found = Submission.model_validate(told)
    except (ValidationError, RecursionError) as error:
        raise RefusedError("not of the form", _first_of(error)) from None
    _check_parts(found)
    return digest_of(found.model_dump())[:24], found


def digest_of(value: object) -> str:
    """SHA-256 of any JSON value, whatever the order of its keys."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode(errors="replace")).hexdigest()


def files_of(runs: Sequence[Run], law: Told) -> dict[str, str]:
    """The digests that a manifest holds, by the name of the part."""
    found = {"law.json": digest_of(law.model_dump())}
    for run in runs:
        found[f"{run.seed}/config.json"] = digest_of(run.config)
        found[f"{run.seed}/trace.jsonl"] = hashlib.sha256(run.trace.encode(errors="replace")).hexdigest()
    return found


def _check_parts(one: Submission) -> None:
    seeds = [run.seed for run in one.runs]
    if any(type(seed) is not int for seed in seeds):
        raise RefusedError("not of the form", "a run's settings name no seed; a seed is a whole number")
    for text in (one.note, one.law.formula, one.law.key, *(run.trace for run in one.runs)):
        if not _is_text(text):
            raise RefusedError("not of the form", "it holds characters that are no text; send UTF-8 without NUL")
    if len(set(one.declared)) != len(one.declared):
        raise RefusedError("not of the form", "a seed is declared twice; declare each once")
    if len(set(seeds)) != len(seeds) or not all(seed in one.declared for seed in seeds):
        raise RefusedError("not of the form", f"runs of the seeds {seeds}, declared {one.declared}; send one a seed")
    if one.manifest.files != files_of(one.runs, one.law):
        raise RefusedError("digest", "the manifest's digests are not those of the parts; pack the runs again")


def _is_text(text: str) -> bool:
    """Whether it can be written to a file and to a database: no NUL, no halves of characters."""
    try:
        return b"\0" not in text.encode()
    except UnicodeEncodeError:
        return False


def config_of(run: Run) -> RunConfig:
    """The settings of a run. Raises RefusedError where they are none."""
    try:
        return TypeAdapter(RunConfig).validate_python(run.config)
    except ValidationError as error:
        raise RefusedError("settings", _first_of(error)) from None


def _first_of(error: ValidationError | RecursionError) -> str:
    if isinstance(error, RecursionError):
        return "nested too deeply"
    one = error.errors(include_url=False, include_input=False)[0]
    return f"{'.'.join(str(part)[:40] for part in one['loc']) or 'the whole'}: {one['msg'][:160]}"


def _no_number(word: str) -> float:
    raise ValueError(f"{word} is no number of JSON's")


def fingerprint(rows: Rows) -> str:
    """SHA-256 of rows: the same for the same numbers, labels and order, wherever they are kept."""
    digest = hashlib.sha256()
    for kind in (rows.columns, rows.targets):
        for name, values in kind.items():
            digest.update(f"{name}\n".encode())
            digest.update(np.ascontiguousarray(values, dtype="<f8").tobytes())
    digest.update("\n".join(str(label) for label in rows.group).encode())
    digest.update(np.ascontiguousarray(rows.weight, dtype="<f8").tobytes())
    digest.update(np.ascontiguousarray(rows.run, dtype="<i8").tobytes())
    return digest.hexdigest()


def version(task: Task, rows: Rows) -> str:
    """The version of a task: a digest of what it says and of its rows, the same wherever its files lie."""
    told = {k: v for k, v in asdict(task).items() if k not in ("train_file", "holdout_file")}
    return digest_of([json.loads(json.dumps(told)), fingerprint(rows)])[:12]


@dataclass(frozen=True, slots=True)
class Agreed:
    """The law that a submission is for: the one that most of its runs end with, of several the first declared."""

    seed: int
    formula: str
    key: str
    program: bool


def agreed(laws: Mapping[int, Mapping[str, Any]], declared: Sequence[int]) -> Agreed:
    """What runs agree on, given the law's record of each by seed."""
    known = [seed for seed in declared if seed in laws]
    votes = Counter(laws[seed]["key"] for seed in known)
    seed = max(known, key=lambda s: (votes[laws[s]["key"]], -known.index(s)))
    law = laws[seed]
    return Agreed(seed, law["formula"], law["key"], bool(law.get("program", False)))
