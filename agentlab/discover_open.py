"""Opens what the settings of a run name: its proposer, and, where that writes with models, the agent that asks them."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from agentlab.budget import Price, Purse
from agentlab.catalog import find_proposer
from agentlab.discover_agent import Agent
from agentlab.discover_decide import Voters, chats, steps_voted
from agentlab.discover_poll import Poll
from agentlab.engine_address import reach
from agentlab.models import KEY, Model
from agentlab.models_errors import secrets_in
from agentlab.models_prices import Price as Listed
from agentlab.models_prices import read_prices
from agentlab.proposers import Proposer
from agentlab.proposers._veil import Veil
from agentlab.proposers._writing import Writer
from agentlab.proposers.mutate import Mutate
from agentlab.trace import Trace
from agentlab.types import Entry, Rows, RunConfig, Task
from agentlab.vote import LADDER
from agentlab.words import UsageError

Prices = Mapping[str, Mapping[str, float]]
"""Prices by model, as a trace holds them."""


def writes(config: RunConfig) -> bool:
    """Whether the proposer of a run writes with a model. Raises CatalogError where there is no such proposer."""
    found = find_proposer(proposer_name(config))
    return hasattr(found, "prompt") and hasattr(found, "read")


def proposer_name(config: RunConfig) -> str:
    """The proposer of a run: the one that is named, else `evolve` with a model and `mutate` without."""
    return config.proposer or ("evolve" if config.model else "mutate")


WINDOW, TURNS = 64, 16
"""Asks from one that sees an entry back to it; fewer with a writer, which learns from what became of its last reply."""


def window_of(config: RunConfig) -> int:
    """The window of a run: the one that is given, else what suits its proposer."""
    return config.window or (TURNS if writes(config) else WINDOW)


def proposer_of(config: RunConfig, task: Task, known: Sequence[str] = ()) -> Proposer:
    """Who proposes without a model: `mutate` beside a writer; `known` are formulas that `mutate` begins with."""
    if writes(config) or proposer_name(config) == Mutate.name:
        return Mutate(task, config.seed, known)
    found: Proposer = find_proposer(proposer_name(config))(task, config.seed)
    return found


def writer_of(config: RunConfig, task: Task, rows: Rows) -> Writer:
    """Who writes with a model, for the task as the model shall see it."""
    found: Writer = find_proposer(proposer_name(config))(Veil(task, rows, blind=config.blind))
    return found


def names_of(config: RunConfig) -> list[str]:
    """The models of a run, in order."""
    return [name.strip() for name in (config.model or "").split(",") if name.strip()]


def prices_of(config: RunConfig, env: Mapping[str, str] = os.environ) -> Prices:
    """The prices of the run's models, of those that have one.

    Raises:
        UsageError: money is limited, and a model has no price.
        AgentlabError: a file of prices is wrong.
    """
    listed = read_prices(env)
    found = {name: price for name in names_of(config) if (price := listed.of(name)) is not None}
    missing = [name for name in names_of(config) if name not in found]
    limit = "budget.usd=" if config.budget.usd is not None else "approve.usd=" if config.approve.usd is not None else ""
    if limit and missing:
        raise UsageError(f"{limit} limits money, and no price of {missing[0]!r} is known; {listed.advice}")
    return {name: _told(price) for name, price in found.items()}


def _told(price: Listed) -> dict[str, float]:
    return {"input": price.input, "output": price.output, "cached": price.cached, "call": price.call}


def check(config: RunConfig) -> None:
    """Refuse settings of models that do not go together, before anything is written or sent.

    Raises:
        UsageError, CatalogError, BackendError: one line that says what is wrong and what to write.
    """
    if writes(config) and not config.model:
        name = proposer_name(config)
        raise UsageError(f"proposer={name}: it writes with a model; add model=NAME and base_url= of its server")
    if config.model and not writes(config) and (config.approve.usd is not None or config.approve.tokens is not None):
        raise UsageError("approve.*: only calls that write laws are approved; add proposer=evolve, or leave it out")
    if len(names_of(config)) > len(LADDER) - 1 and not writes(config):
        raise UsageError(
            f"model={config.model}: {len(LADDER) - 1} models vote at most; add proposer=evolve, or name fewer"
        )
    if config.engine == "ray":
        reach(config.address)
    chats(config)
    prices_of(config)


def voting(
    config: RunConfig, task: Task, rows: Rows, prices: Prices, *, writes: bool
) -> tuple[RunConfig, list[Price | None], Callable[[Entry], str]]:
    """What `open_voters` takes: whose parents models elect without writing any, as they may see them."""
    veil = Veil(task, rows, blind=config.blind)
    known: list[Price | None] = [Listed(**prices[n]) if n in prices else None for n in names_of(config)]
    return (RunConfig() if writes else config), known, lambda entry: veil.shown(entry.proposal.formula)


@asynccontextmanager
async def open_agent(
    config: RunConfig, task: Task, rows: Rows, prices: Prices, trace: Trace, models: Sequence[Model] | None = None
) -> AsyncIterator[Agent | None]:
    """The agent of a run, until the block ends; None where its proposer asks no model.

    `prices` are those on record, `trace` is where votes put down their calls; `models` stand in for those of the
    settings in a replay.
    """
    if not writes(config):
        yield None
        return
    async with AsyncExitStack() as stack:
        given = models or [await stack.enter_async_context(chat) for chat in chats(config)]
        budget, names = config.budget, names_of(config)
        caps: dict[str, Any] = {"tokens": budget.tokens, "usd": budget.usd, "flops": budget.flops}
        limits = {name: cap for name, cap in caps.items() if cap is not None}
        purse = Purse(**limits)
        known: list[Price | None] = [Listed(**prices[name]) if name in prices else None for name in names]
        voting = len(LADDER) - 1
        writer = writer_of(config, task, rows)
        told = Purse(**limits)
        voters = Voters(
            given[:voting], seed=config.seed, steps=steps_voted(config), purse=purse, prices=known[:voting],
            shown=writer.listed,
        )  # fmt: skip
        agent = Agent(
            writer, given, names, known, purse, told, config.seed, config.reply_tokens or writer.max_tokens,
            poll=Poll(voters, purse, told, lambda record: trace.append([record])),
            wary=config.approve.usd is not None or config.approve.tokens is not None,
            secrets=secrets_in(os.environ, os.environ.get(KEY, "")),
        )  # fmt: skip
        try:
            yield agent
        finally:
            await agent.stop()
