"""A run as an object, read from its folder alone: its laws, entries, generations, votes and training runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from agentlab import runs_result
from agentlab.discover_files import TRACE
from agentlab.discover_open import window_of
from agentlab.replay_entries import Generation, RunEntry, entries_of, generations_of, steps_of
from agentlab.replay_fork import fork, origin
from agentlab.replay_law import FoundLaw, Ground, Hidden
from agentlab.run_rows import read_rows
from agentlab.runs_files import find, read_config
from agentlab.trace import Record, number, read
from agentlab.types import Rows, RunConfig, Task
from agentlab.words import UsageError

__all__ = ["FoundLaw", "Generation", "Hidden", "Run", "RunEntry", "compare", "open_run"]


def open_run(path: str | Path, out: str = "runs") -> Run:
    """The run of a folder, or of an id under `out`; also one that is still going on, as it stands now.

    Raises:
        UsageError: there is no such run.
    """
    folder = find(str(path), out)
    trace = folder / TRACE
    return Run(folder, tuple(read(trace)) if trace.exists() else ())


@dataclass(frozen=True, eq=False)
class Run:
    """A read-only view of one run folder as it was when it was opened; `records` is its trace, a line each.

    Of a run that makes training runs the entries are those of its last round; `rounds` has all of them.
    """

    folder: Path
    records: tuple[Record, ...] = field(repr=False)

    @property
    def id(self) -> str:
        """The name of the run's folder."""
        return self.folder.name

    @cached_property
    def config(self) -> RunConfig:
        """The settings that the run was made with."""
        return read_config(self.folder)

    @cached_property
    def task(self) -> Task:
        """What is to be explained."""
        return read_rows(self.folder)[0]

    @property
    def rows(self) -> Rows:
        """All rows that are not sealed."""
        return self.ground.every

    @cached_property
    def ground(self) -> Ground:
        """What the run's laws were fitted on."""
        return Ground(self.folder, self.task, self.config)

    @property
    def done(self) -> bool:
        """Whether the run has come to its end, with a law or without."""
        return any(r["kind"] == "law" for r in self.records)

    @cached_property
    def result(self) -> dict[str, Any]:
        """What the run found, as `agentlab runs show --json` prints it.

        Raises:
            UsageError: the run is not done.
            NoLawError: it ended without a law.
        """
        return runs_result.result(self.folder)

    @cached_property
    def rounds(self) -> tuple[Run, ...]:
        """The searches of a run that makes training runs, each a run of its own; none for other runs."""
        return tuple(open_run(path.parent) for path in sorted(self.folder.glob(f"rounds/*/{TRACE}")))

    @cached_property
    def entries(self) -> tuple[RunEntry, ...]:
        """The candidates, in the order in which they were asked for."""
        if self.rounds:
            last = self.rounds[-1]
            return entries_of(last.records, f"rounds/{last.id}/{TRACE}", last.ground)
        return entries_of(self.records, TRACE, self.ground)

    def __getitem__(self, entry: int) -> RunEntry:
        """The entry of this number. Raises UsageError where there is none."""
        if not 0 <= entry < len(self.entries):
            raise UsageError(f"{self.id}: no entry {entry}; there are 0 to {len(self.entries) - 1}")
        return self.entries[entry]

    def __len__(self) -> int:
        return len(self.entries)

    @cached_property
    def window(self) -> int:
        """Entries of a generation: as many as are asked for before the first of them is seen."""
        return window_of(self.config)

    @cached_property
    def generations(self) -> tuple[Generation, ...]:
        """The entries in blocks, with the best so far and what was new in each."""
        return generations_of(self.entries, self.window)

    def best_so_far(self) -> list[tuple[int, float]]:
        """(entry, objective in nats) of every entry that was the best so far when it came."""
        return [(e.id, e.objective) for e in steps_of(self.entries)]

    @property
    def best(self) -> RunEntry | None:
        """The entry of the least objective so far; the law that is believed may be another."""
        steps = steps_of(self.entries)
        return steps[-1] if steps else None

    @cached_property
    def law(self) -> FoundLaw:
        """The law that the run believes, with its parameters on record.

        Raises:
            UsageError: the run has none yet.
            NoLawError: it ended without one.
        """
        told = self._believed()
        return FoundLaw(
            told["formula"], told["params"], self.ground, told["entry"], bool(told.get("program")),
            recorded=_pairs(told["intervals"]),
        )  # fmt: skip

    def _believed(self) -> Record:
        found = next((r for r in self.records if r["kind"] == "law"), None)
        if found is None:
            raise UsageError(f"{self.id} has no law yet; continue it with: agentlab runs resume {self.folder}")
        if found["entry"] is None:
            raise runs_result.NoLawError(
                f"{self.id}: no law fitted the rows within the budget; raise budget.candidates="
            )
        return found

    @cached_property
    def laws(self) -> tuple[FoundLaw, ...]:
        """The law that is believed, then the other finalists that could be judged, the best objective first."""
        first = self.law
        judged = [r for r in self.records if r["kind"] == "finalist" and r["status"] == "ok"]
        others = [r for r in judged if r["entry"] != first.entry]
        programs = {e.id for e in self.entries if e.program}
        return (
            first,
            *(
                FoundLaw(r["formula"], r["params"], self.ground, r["entry"], r["entry"] in programs, made="finalist")
                for r in sorted(others, key=lambda r: (number(r["objective"]), r["entry"]))
            ),
        )

    def of(self, *kinds: str) -> list[Record]:
        """The records of these kinds, each with its line in the trace as `trace_line`."""
        return [r | {"trace_line": i} for i, r in enumerate(self.records, start=1) if r["kind"] in kinds]

    def votes(self) -> list[Record]:
        """The decisions that models voted on."""
        return self.of("decision")

    def prompts(self) -> list[Record]:
        """The calls to models: what was asked and answered, and calls that were lost."""
        return self.of("reply", "lost")

    def experiments(self) -> list[Record]:
        """The training runs that were made: what was asked for with what came of it."""
        asked = {r["id"]: r for r in self.of("experiment")}
        return [asked[r["id"]] | r | {"asked_line": asked[r["id"]]["trace_line"]} for r in self.of("measured")]

    @property
    def forked_from(self) -> Mapping[str, Any] | None:
        """Where this run was forked from: run, generation, entries, changes; None where it was not."""
        return origin(self.folder)

    def fork(self, gen: int, out: str | Path | None = None, **changes: Any) -> Run:  # noqa: ANN401 - settings
        """A new run that goes on after a generation of this one, once resumed: `agentlab runs resume`.

        Args:
            gen: The last generation that is kept; its number counts from 0.
            out: The folder for the new run's folder; that of this run without it.
            changes: Settings that leave what is kept valid, such as budget__candidates=2000 or patience=0.

        Raises:
            UsageError: there is no such generation, or a change would make what is kept another run's.
        """
        kept = self._kept(gen)
        return open_run(fork(self.folder, self.records, kept, gen, Path(out) if out else self.folder.parent, changes))

    def _kept(self, gen: int) -> int:
        """How many lines of the trace a fork keeps."""
        if self.rounds or self.config.experiments:
            raise UsageError(f"{self.id} made runs; fork one of its searches: run.rounds[0].fork(gen={gen})")
        if not 0 <= gen < len(self.generations):
            raise UsageError(f"gen={gen}: {self.id} has generations 0 to {len(self.generations) - 1}")
        return self.generations[gen].entries[-1].line


def _pairs(told: Mapping[str, Any]) -> dict[str, dict[str, dict[str, tuple[float, float]]]]:
    return {
        g: {t: {p: (number(ends[0]), number(ends[1])) for p, ends in named.items()} for t, named in targets.items()}
        for g, targets in told.items()
    }


def compare(*runs: Run) -> list[dict[str, Any]]:
    """Runs side by side, a dictionary each: law, errors, counts and cost; `same_law` as the first one's.

    Errors are comparable where the rows are: `same_rows` says whether task and rows are those of the first.
    """
    return [_beside(run, runs[0]) for run in runs]


def _beside(run: Run, first: Run) -> dict[str, Any]:
    told = run.result
    score, law = told["score"], told["law"]
    line: dict[str, Any] = {k: told[k] for k in ("run", "task", "seed", "proposer")}
    line |= {"formula": law["formula"], "key": law["key"], "same_law": law["key"] == first.result["law"]["key"]}
    line |= {"same_rows": _same(run.rows, first.rows), "n_params": law["n_params"]}
    for name in ("dev", "holdout", "reference_holdout"):
        for figure in ("are", "r2"):
            line[f"{name}_{figure}"] = None if score[name] is None else number(score[name][figure])
    line |= {"evaluated": told["counts"]["evaluated"], "rejected": sum(told["counts"]["rejected"].values())}
    return line | {k: told["cost"][k] for k in ("seconds", "usd", "flops")} | {"verdict": told["verdict"]}


def _same(one: Rows, other: Rows) -> bool:
    def columns(rows: Rows) -> Sequence[tuple[str, bytes]]:
        return [(k, v.tobytes()) for k, v in (*rows.columns.items(), *rows.targets.items())]

    return columns(one) == columns(other)
