"""`agentlab bench hanoi`: the towers of Hanoi, every move voted, by a simulated model or by real ones.

As published: arXiv 2511.09030 solves 20 disks, 1,048,575 moves, without an error.
"""

from __future__ import annotations

import asyncio
import hashlib
import resource
import time
from collections.abc import Awaitable, Callable, Hashable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from agentlab.errors import AgentlabError
from agentlab.hanoi import Towers, TowersJob, astray, legs, simulate
from agentlab.hanoi_expected import expected_calls
from agentlab.hanoi_oracle import Answers, Faults, Oracle
from agentlab.hanoi_play import ModelAnswers
from agentlab.journal import Journal
from agentlab.ledger import Ledger
from agentlab.models import Chat
from agentlab.steps import Chain, Counts, Cursor, Voting, Walk
from agentlab.steps_async import SideBySide
from agentlab.vote import LADDER, Answer, Rules, Wave
from agentlab.vote_measure import Reliability


@dataclass(frozen=True, slots=True)
class Setting:
    """What `agentlab bench hanoi` is told.

    `error`, `malformed`, `repeat`, `correlation`, `hard` and `latency` (seconds an answer takes) are the simulated
    model's; `model`, a name or two with a comma, asks real ones at `base_url` instead. Without `k` it is measured on
    the fly, so that all steps are right with probability `target`. `escalate=dissent` is the default where errors are
    correlated or steps are hard. `calls` and `tokens` are caps; `fsync` steps reach the disk together.
    """

    disks: int = 20
    error: float = 0.01
    k: int | None = None
    malformed: float = 0.0
    repeat: float = 0.0
    correlation: float = 0.0
    hard: int = 0
    escalate: Literal["undecided", "dissent"] | None = None
    chains: int = 1
    latency: float | None = None
    target: float = 0.95
    calls: int | None = None
    tokens: int | None = None
    journal: str | None = None
    fsync: int = 10_000
    model: str | None = None
    base_url: str | None = None
    max_tokens: int = 2000
    seed: int = 0

    @property
    def rules(self) -> Rules:
        """The rules of the votes; a ladder where dissent escalates, as long as there are models for it."""
        dissent = bool(self.hard or self.correlation) if self.escalate is None else self.escalate == "dissent"
        models = 2 if self.model is None else len(self.model.split(","))
        ladder = tuple(rung for rung in LADDER if rung.model < models)
        most = max(100, 20 * (self.k or 0))
        return Rules(most, most, ladder, "dissent") if dissent else Rules(most, most)

    @property
    def job(self) -> bytes:
        """What a journal is bound to: the same towers, cut the same way, by the same answers."""
        told = {"job": "hanoi", "disks": self.disks, "chains": self.chains, "seed": self.seed, "model": self.model}
        return repr(sorted(told.items(), key=str)).encode()


class Moves:
    """All moves of a tower, a byte each (4 source + target), in order whichever chain made them."""

    def __init__(self, towers: Towers, bounds: Sequence[tuple[int, int]]) -> None:
        self.made = bytearray(towers.moves)
        # The first step of a later chain follows a move that is another chain's: the known one.
        self._before = {low: towers.right(towers.state_at(low - 1), low - 1) & 15 for low, _ in bounds if low}

    def note(self, index: int, keys: Sequence[Hashable]) -> None:
        """Keep the moves of steps `index`, `index + 1`, ..."""
        self.made[index : index + len(keys)] = bytes([key & 15 for key in keys if isinstance(key, int)])

    def before(self, index: int) -> int | None:
        """The move before a step, None before the first."""
        return self._before.get(index, self.made[index - 1]) if index else None


def silent(done: int, total: int) -> None:
    """Tell nobody."""


def run(setting: Setting, tell: Callable[[int, int], None] = silent) -> dict[str, Any]:
    """Solve the towers and say what it took; `tell` hears steps done and in all after each superstep.

    Raises:
        AgentlabError: a setting, a journal, or a model that cannot be used.
    """
    towers = Towers(setting.disks)
    bounds = legs(towers, setting.chains)
    faults = Faults(
        setting.error, setting.malformed, setting.repeat, setting.correlation, setting.hard, steps=towers.moves
    )
    moves, tokens = Moves(towers, bounds), Ledger(float("inf") if setting.tokens is None else setting.tokens)
    with ExitStack() as stack:
        draw, models = _draw(setting, towers, moves, faults, tokens)
        job, calls = TowersJob(towers, draw), None if setting.calls is None else Ledger(setting.calls, "calls")
        chains = [Chain(job, low, high, towers.state_at(low), _voting(setting, towers, calls)) for low, high in bounds]
        waits = setting.model is not None or setting.latency is not None
        go = stack.enter_context(SideBySide()) if waits else None
        for model in models:
            if go is not None:
                stack.callback(lambda loop, one: loop.run(one.close()), go, model)
        journal = None
        if setting.journal is not None:
            journal = stack.enter_context(Journal(Path(setting.journal), setting.job, every=setting.fsync))
        walk, began = Walk(chains, journal, moves.note, go=go), time.perf_counter()
        died = _walk(setting, walk, moves, stack, tell)
        seconds = time.perf_counter() - began
    found = _result(setting, walk, moves, died, faults)
    return found | {"seconds": round(seconds, 3), "tokens": tokens.spent if setting.model else None}


def _draw(
    setting: Setting, towers: Towers, moves: Moves, faults: Faults, tokens: Ledger
) -> tuple[Callable[[int, int, Wave], Any], list[Chat]]:
    if setting.model is not None:
        models = [Chat(setting.base_url, name) for name in setting.model.split(",")]
        asked = ModelAnswers(
            towers, models, moves.before, ledger=tokens, max_tokens=setting.max_tokens, seed=setting.seed
        )
        return asked, models
    if setting.base_url is not None:
        raise AgentlabError("hanoi: base_url= says where a model is served; name it with model=")
    answers = Answers(towers, Oracle(faults, setting.seed, blocks=setting.chains + 8))
    return (answers.draw if setting.latency is None else _late(answers, setting.latency)), []


def _late(answers: Answers, seconds: float) -> Callable[[int, int, Wave], Awaitable[list[Answer]]]:
    async def draw(state: int, index: int, wave: Wave) -> list[Answer]:
        await asyncio.sleep(seconds)
        return answers.draw(state, index, wave)

    return draw


def _voting(setting: Setting, towers: Towers, calls: Ledger | None) -> Voting:
    measured = Reliability(setting.target, towers.moves) if setting.k is None else None
    return Voting(setting.k or 1, setting.rules, measured, calls)


def _walk(
    setting: Setting, walk: Walk[int], moves: Moves, stack: ExitStack, tell: Callable[[int, int], None]
) -> int | None:
    """Go on to the end, or to the first move that the shortest solution does not make, which is returned."""
    checked = {
        id(chain): low for chain, (low, _) in zip(walk.chains, legs(Towers(setting.disks), setting.chains), strict=True)
    }
    for cursor in _supersteps(setting, walk, stack):
        tell(cursor.steps, len(moves.made))
        for chain in walk.chains:
            low = checked[id(chain)]
            wrong = astray(setting.disks, low, moves.made[low : chain.index])
            if wrong is not None:
                return wrong
            checked[id(chain)] = chain.index
    return None


def _supersteps(setting: Setting, walk: Walk[int], stack: ExitStack) -> Iterator[Cursor]:
    if walk.journal is None:
        while not walk.over:
            yield walk.superstep()
        return
    import sqlite3  # noqa: PLC0415

    from langgraph.checkpoint.sqlite import SqliteSaver  # noqa: PLC0415

    from agentlab.steps_graph import supersteps  # noqa: PLC0415

    connection = stack.enter_context(closing(sqlite3.connect(f"{setting.journal}.sqlite", check_same_thread=False)))
    yield from supersteps(walk, SqliteSaver(connection), "hanoi")


def _result(setting: Setting, walk: Walk[int], moves: Moves, died: int | None, faults: Faults) -> dict[str, Any]:
    total = Counts.total(chain.counts for chain in walk.chains)
    bounds = legs(Towers(setting.disks), setting.chains)
    made = b"".join(moves.made[low : chain.index] for chain, (low, _) in zip(walk.chains, bounds, strict=True))
    if died is not None and len(bounds) == 1:
        made = made[:died]  # what was decided before anybody could see the error counts for nothing
    undecided = [chain for chain in walk.chains if chain.undecided is not None]
    whole = len(made) == len(moves.made)
    verdict = simulate(setting.disks, made) if whole else f"{len(made):,} of {len(moves.made):,} moves are right"
    measured = walk.chains[0].voting.measured
    rungs = len(setting.rules.ladder)
    return {
        "solved": not verdict, "steps": len(made), "calls": total.draws,
        "expected_calls": None if setting.model else round(expected_calls(faults, total.ahead, rungs), 1),
        "undecided": len(undecided), "escalated": total.escalated, "seconds": 0.0,
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
        "moves_sha256": hashlib.sha256(made).hexdigest(),
        "verdict": verdict or "solved", "died_at": died, "k": walk.chains[0].voting.ahead, "waves": total.waves,
        "dissent": total.dissent, "flags": total.flags, "replayed": walk.replayed,
        "stopped": undecided[0].undecided.reason if undecided and undecided[0].undecided else
        "the budget of calls is spent" if any(chain.broke for chain in walk.chains) else "",
        "p_low": None if measured is None else round(measured.p_low, 6),
        "warning": "" if measured is None else measured.warning,
        "simulated": setting.model is None, "setting": asdict(setting),
    }  # fmt: skip


def page(result: dict[str, Any]) -> str:
    """The result for a person."""
    rows = [("tower", f"{result['setting']['disks']} disks, {result['steps']:,} moves: {result['verdict']}")]
    if result["died_at"] is not None:
        rows.append(("died", f"at step {result['died_at']:,}, which was decided wrongly"))
    if result["stopped"]:
        rows.append(("stopped", result["stopped"]))
    expected = "" if result["expected_calls"] is None else f", {result['expected_calls']:,.0f} expected"
    rows.append(("calls", f"{result['calls']:,}{expected}, in {result['waves']:,} waves; k = {result['k']}"))
    flags = ", ".join(f"{count:,} {reason}" for reason, count in sorted(result["flags"].items())) or "none"
    rows.append(("discarded", flags))
    rows.append(("votes", f"{result['dissent']:,} not unanimous, {result['escalated']:,} escalated"))
    if result["replayed"]:
        rows.append(("journal", f"{result['replayed']:,} steps were on record and not asked again"))
    rows.append(("time", f"{result['seconds']:,.1f} s, {result['peak_mb']:,.0f} MB"))
    rows.append(("moves", f"sha256 {result['moves_sha256']}"))
    lines = [f"{name:10s}{text}" for name, text in rows]
    if result["warning"]:
        lines.append(f"warning   {result['warning']}")
    if result["simulated"]:
        lines.append("\nthe answers are simulated; model=NAME base_url=http://.. asks a real model")
    return "\n".join([*lines, f"\nnext: {_next(result)}"])


def _next(result: dict[str, Any]) -> str:
    if result["solved"]:
        return "agentlab bench topology"
    if result["died_at"] is not None and result["setting"]["error"] >= 0.5:
        return "agentlab bench hanoi error=0.1; where most answers are wrong no k helps"
    if result["died_at"] is not None:
        return f"agentlab bench hanoi disks={result['setting']['disks']} k={result['k'] + 1}"
    if result["setting"]["journal"]:
        return "the same command goes on from the journal"
    return "agentlab bench hanoi journal=hanoi.journal, which can be stopped and goes on"
