"""`agentlab bench hanoi`: the towers of Hanoi, every move voted, by a simulated model or by real ones.

As published: arXiv 2511.09030 solves 20 disks, 1,048,575 moves, without an error.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

from agentlab.budget import Purse
from agentlab.errors import AgentlabError
from agentlab.hanoi import Towers, TowersJob, legs
from agentlab.hanoi_oracle import Answers, Faults, Oracle
from agentlab.hanoi_play import ModelAnswers
from agentlab.hanoi_setting import Setting
from agentlab.hanoi_told import Moves, page, result
from agentlab.journal import Journal
from agentlab.ledger import Ledger
from agentlab.models import Chat
from agentlab.steps import Chain, Cursor, Tell, Voting, Walk, silent
from agentlab.steps_async import SideBySide
from agentlab.vote import Answer, Wave
from agentlab.vote_measure import Reliability

__all__ = ["Setting", "page", "run"]


def run(setting: Setting, tell: Tell = silent) -> dict[str, Any]:
    """Solve the towers and say what it took; `tell` hears steps done and in all after each superstep.

    Raises:
        AgentlabError: a setting, a journal, or a model that cannot be used.
    """
    towers = Towers(setting.disks)
    bounds = legs(towers, setting.chains)
    faults = Faults(
        setting.error, setting.malformed, setting.repeat, setting.correlation, setting.hard, steps=towers.moves
    )
    moves, purse = Moves(towers, bounds), Purse(tokens=math.inf if setting.tokens is None else setting.tokens)
    with ExitStack() as stack:
        draw, models = _draw(setting, towers, moves, faults, purse)
        job, voting = TowersJob(towers, draw), _voting(setting, towers)
        chains = [Chain(job, low, high, towers.state_at(low), voting) for low, high in bounds]
        go = stack.enter_context(SideBySide()) if setting.model is not None or setting.latency is not None else None
        for model in models:
            stack.callback(_close, go, model)
        journal = None
        if setting.journal is not None:
            journal = stack.enter_context(Journal(Path(setting.journal), setting.job, every=setting.fsync))
        if go is not None:
            stack.callback(go.stop)  # the last to be entered is the first to end
        walk, began = Walk(chains, journal, moves.note, go=go), time.perf_counter()
        _walk(setting, walk, moves, stack, tell)
        seconds = time.perf_counter() - began
    told = {"seconds": round(seconds, 3), "tokens": purse.tokens.spent if setting.model else None}
    return result(setting, walk, moves, None if setting.model else faults) | told


def _close(go: SideBySide | None, model: Chat) -> None:
    if go is not None:
        go.run(model.close())


def _draw(
    setting: Setting, towers: Towers, moves: Moves, faults: Faults, purse: Purse
) -> tuple[Callable[[int, int, Wave], Any], list[Chat]]:
    if setting.model is not None:
        models = [Chat(setting.base_url, name) for name in setting.model.split(",")]
        asked = ModelAnswers(
            towers, models, moves.before, purse=purse, max_tokens=setting.max_tokens, seed=setting.seed
        )
        return asked, models
    # Without k the votes begin with ten and soon need fewer.
    oracle = Oracle(faults, setting.seed, blocks=setting.chains + 8, ahead=min(max(8, setting.k or 0), 64))
    answers = Answers(towers, oracle)
    return (answers.draw if setting.latency is None else _late(answers, setting.latency)), []


def _late(answers: Answers, seconds: float) -> Callable[[int, int, Wave], Awaitable[list[Answer]]]:
    async def draw(state: int, index: int, wave: Wave) -> list[Answer]:
        await asyncio.sleep(seconds)
        return answers.draw(state, index, wave)

    return draw


def _voting(setting: Setting, towers: Towers) -> Voting:
    measured = Reliability(setting.target, towers.moves) if setting.k is None else None
    calls = None if setting.calls is None else Ledger(setting.calls, "calls")
    return Voting(setting.k or 1, setting.rules, measured, calls)


def _walk(setting: Setting, walk: Walk[int], moves: Moves, stack: ExitStack, tell: Tell) -> None:
    """Go on to the end, or until a move is seen that the shortest solution does not make."""
    if moves.wrong(walk.chains) is not None:  # on record already
        return
    for cursor in _supersteps(setting, walk, stack):
        tell(cursor.steps, len(moves.made))
        if moves.wrong(walk.chains) is not None:
            return


def _supersteps(setting: Setting, walk: Walk[int], stack: ExitStack) -> Iterator[Cursor]:
    if walk.journal is None:
        while not walk.over:
            yield walk.superstep()
        return
    import sqlite3  # noqa: PLC0415

    from langgraph.checkpoint.sqlite import SqliteSaver  # noqa: PLC0415

    from agentlab.steps_graph import supersteps  # noqa: PLC0415

    path = f"{setting.journal}.sqlite"
    try:
        connection = stack.enter_context(closing(sqlite3.connect(path, check_same_thread=False)))
        yield from supersteps(walk, SqliteSaver(connection), "hanoi")
    except sqlite3.Error as error:
        raise AgentlabError(f"{path}: cannot keep checkpoints ({error}); free space, or move the file away") from error
