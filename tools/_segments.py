"""Trains a run segment by segment, each voted on by replicas of the trainer before the next one begins.

    python -m agentlab.tools._segments FOLDER/run.json

A segment is a micro-step (agentlab.vote): so many replicas train it, each a process of its own from the last agreed
checkpoint, and the next segment begins when one answer is ahead by that many votes. A run that stalls, dies, leaves a
file with another digest than it said, or spikes or diverges where no other run does the same, is discarded and done
again (agentlab.tools._segments_ballot). With one replica nothing is compared: a fault that raises no flag goes through.

JSON lines out, as the trainer's own, for one job (agentlab.tools._jobs): start, resume, progress of the first replica,
flag, segment with votes and flags, validation, diverged, damaged, done, error; `flops_spent` counts every replica. The
folder may lose this process or any replica at any moment: started again it goes on from the last agreed checkpoint and
ends with the same result.
"""

from __future__ import annotations

import fcntl
import json
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TextIO, cast

from agentlab.tools._job_files import Fields, read_object
from agentlab.tools._ray_replicas import Nodes
from agentlab.tools._segments_agreed import CHECKPOINT, Agreed, Shelf
from agentlab.tools._segments_ballot import MODEL, RESULT, AnswerLine, Ballot, Key, Reading
from agentlab.tools._segments_replicas import Attempt, Crew, Here, Lanes, Replicated, end_leftovers
from pydantic import TypeAdapter, ValidationError

from agentlab.errors import AgentlabError
from agentlab.files import sync
from agentlab.vote import Answer, Decision, Rules, Tally, Wave, first_ahead

REDRAWS = 6
"""Runs of a segment beyond the first of every replica; after them it is undecided and the job fails."""
AGAIN = "the last agreed checkpoint is kept: start it again to go on from there"
Tell = Callable[[Fields], None]


def write_order(folder: Path, asked: Replicated) -> Path:
    """Leaves what is asked in the folder; the path is what this program takes."""
    path = folder / "run.json"
    path.write_text(json.dumps(asdict(asked), indent=1) + "\n", encoding="utf-8")
    return path


def supervise(path: Path, tell: Tell) -> int:
    """Trains what the file asks for in its folder; returns 0 for a result, 1 for undecided, 2 for a bad config.

    Args:
        path: As `write_order` left it.
        tell: Gets every line.
    """
    folder = path.resolve().parent
    try:
        asked = TypeAdapter(Replicated).validate_json(path.read_bytes())
        with _alone(folder):
            if not (folder / RESULT).exists():
                end_leftovers(folder.glob("work/*/*"))
                return _Run(folder, asked, tell).to_the_end()
            _tidy(folder)
    except ValidationError as error:
        what = f"{error.error_count()} bad fields"
        tell({"event": "error", "where": str(path), "what": what, "instead": "write it with write_order"})
        return 2
    except (OSError, AgentlabError) as error:
        tell({"event": "error", "where": folder.name, "what": str(error), "instead": AGAIN})
        return 2
    return 0


class _Run:
    """One run under way: where its files lie, and what its log has been told."""

    def __init__(self, folder: Path, asked: Replicated, tell: Tell) -> None:
        self.folder, self.asked, self.tell = folder, asked, tell
        self.lanes: Lanes = Here(asked) if asked.cluster is None else Nodes(asked, asked.cluster, tell)
        self.shelf = Shelf(folder / "agreed")
        self.began = time.monotonic()
        self.last: Agreed | None = None
        self.said: set[str] = set()

    def to_the_end(self) -> int:
        """Segment after segment; the exit code."""
        while True:
            self.last = self.shelf.latest(self.tell)  # read anew each time: it may have rotted since it was agreed on
            if self.last is None:
                self.said.add("resume")  # every later segment resumes from the one before; the run as a whole did not
            number = 0 if self.last is None else self.last.segment + 1
            checkpoint = None if self.last is None else self.shelf.checkpoint(self.last)
            crew = Crew(self._place(number), self.asked, checkpoint, self.lanes)
            ballot = Ballot(None if self.last is None else self.last.state, self.asked.tolerance)
            outcome = first_ahead(self._draw(crew, ballot), self.asked.replicas, self._rules())
            tally = outcome.tallies[0]
            if not isinstance(outcome, Decision):
                what = f"{outcome.reason} ({_counted(tally)})"
                self.tell({"event": "error", "where": f"segment {number}", "what": what, "instead": AGAIN})
                return 1
            chosen = ballot.readings[cast("Key", outcome.key)][0]
            if chosen.line is None:
                self.tell(chosen.attempt.line("error") or {})
                return 2
            if self._accept(chosen, chosen.line, tally, crew):
                return 0

    def _rules(self) -> Rules:
        return Rules(most_draws=self.asked.replicas + REDRAWS, most_flags=REDRAWS)

    def _place(self, number: int) -> Path:
        return self.folder / "work" / f"{number:07d}"

    def _draw(self, crew: Crew, ballot: Ballot) -> Callable[[Wave], Sequence[Answer]]:
        def draw(wave: Wave) -> Sequence[Answer]:
            attempts = crew.run(wave.count, self._hear if wave.number == 0 else None)
            votes: Sequence[Answer]
            votes, flagged = ballot.votes(attempts)
            for flag in flagged:
                about = f"{crew.folder.name}/{flag.number:04d}"
                self.tell({"event": "flag", "run": about, "reason": flag.reason, "why": flag.why})
            return votes

        return draw

    def _hear(self, line: Fields) -> None:
        """Passes a replica's line on: how the run began once, progress always, the rest when it has been voted on."""
        event = str(line.get("event"))
        if event in ("start", "resume") and event not in self.said:
            self.said.add(event)
            rules: Fields = {"replicas": self.asked.replicas, "tolerance": self.asked.tolerance}
            self.tell({**line, **rules} if event == "start" else line)
            if event == "resume" and self.last is not None:
                for told in self.last.lines:
                    self.tell(told)
        elif event == "progress":
            self.tell(line)

    def _accept(self, chosen: Reading, line: AnswerLine, tally: Tally, crew: Crew) -> bool:
        """Takes over what was voted for; True when the run has its result."""
        if not (chosen.attempt.number == crew.heard and "start" in self.said):
            for heard in chosen.attempt.lines:
                self._hear(heard)
        before, spent = (0, 0) if self.last is None else (self.last.flops, self.last.flops_spent)
        spent += crew.flops(before)
        votes = sorted(tally.votes.values(), reverse=True)
        cost: Fields = {"votes": [*votes], "flags": {**tally.flags}, "draws": tally.draws, "flops_spent": spent}
        lines = [_told(chosen.attempt, event) for event in ("segment", "validation", "diverged")]
        lines = [found for found in lines if found]
        lines[0] |= cost | {"state_digest": line.state}
        if RESULT in line.files:
            for told in lines:
                self.tell(told)
            self._finish(chosen.attempt, spent)
            return True
        lines[0]["loss"] = line.loss  # said again where the job is taken up, after lines of a later step
        lines[0]["checkpoint"] = f"{self.shelf.folder.name}/{line.segment:07d}/{CHECKPOINT}"
        agreed = Agreed(line.segment, line.step, before + line.flops, line.state, line.files[CHECKPOINT], spent, lines)
        self.shelf.add(chosen.attempt.folder / CHECKPOINT, agreed)
        for told in lines:
            self.tell(told)
        shutil.rmtree(crew.folder)
        return False

    def _finish(self, attempt: Attempt, spent: int) -> None:
        """The result of the last segment becomes that of the run; its time is that of the whole."""
        seconds = time.monotonic() - self.began
        if (attempt.folder / MODEL).exists():
            sync(attempt.folder / MODEL)
            (attempt.folder / MODEL).replace(self.folder / MODEL)
        result = {**(read_object(attempt.folder / RESULT) or {}), "seconds": seconds}
        part = self.folder / (RESULT + ".part")
        part.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        sync(part)
        part.replace(self.folder / RESULT)
        sync(self.folder)
        self.tell({**_told(attempt, "done"), "seconds": seconds, "flops_spent": spent})
        _tidy(self.folder)


def _told(attempt: Attempt, event: str) -> Fields:
    return dict(attempt.line(event) or {})


def _counted(tally: Tally) -> str:
    votes = ", ".join(str(n) for n in sorted(tally.votes.values(), reverse=True)) or "none"
    flags = ", ".join(f"{reason} {n}" for reason, n in sorted(tally.flags.items())) or "none"
    return f"votes: {votes}; flags: {flags}"


def _tidy(folder: Path) -> None:
    """A run with its result has no more need of checkpoints."""
    for name in ("work", "agreed"):
        shutil.rmtree(folder / name, ignore_errors=True)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keeps a second supervisor or trainer out of the folder; the system frees the lock however this process ends."""
    with (folder / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise AgentlabError("another process trains there; wait for it") from error
        yield


def _print(line: Fields, out: TextIO = sys.stdout) -> None:
    # Bound as the program starts: a cluster that is joined later takes the standard streams.
    out.write(json.dumps(line) + "\n")
    out.flush()


def main(arguments: list[str]) -> int:
    """Exit code: 0 a result, 1 undecided, 2 bad config, folder or disk."""
    if len(arguments) != 1:
        _print({"event": "error", "where": "arguments", "what": "one is needed", "instead": "give FOLDER/run.json"})
        return 2
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(143))  # so that the replicas are ended too
    return supervise(Path(arguments[0]), _print)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
