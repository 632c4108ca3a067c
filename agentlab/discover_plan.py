"""What a dry run tells of the models of a run: how often they would be asked, what is sent, and what it costs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from agentlab.budget_estimate import Estimate, estimate, told
from agentlab.discover_agent import WANTED
from agentlab.discover_book import EARN, START
from agentlab.discover_decide import most_decisions, sent
from agentlab.discover_open import names_of, prices_of, writer_of, writes
from agentlab.discover_turns import ALONE
from agentlab.models import Prompt
from agentlab.models_prices import Price
from agentlab.models_records import messages
from agentlab.proposers._writing import Sought
from agentlab.run_rows import Intake
from agentlab.types import DEFAULT_CANDIDATES, RunConfig

REPLY, A_VOTE, VOTE_REPLY = 400, 2_000, 60
"""Tokens of a usual reply with proposals; characters of a usual question of a vote; tokens of its reply."""

PARENTS = 2_500
"""Characters by which a prompt grows once there are laws to show."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What would be asked: nothing is sent to make it."""

    models: Sequence[str]
    where: str
    prompt: Prompt | None
    estimates: Sequence[Estimate]
    decisions: int | None
    sent: str


def plan_of(config: RunConfig, taken: Intake) -> Plan | None:
    """What the models of a run would be asked; None where it has none.

    Raises:
        AgentlabError: the settings of models do not go together.
    """
    names = names_of(config)
    if not names:
        return None
    prices = prices_of(config)
    price = Price(**prices[names[0]]) if names[0] in prices else None
    votes = most_decisions(config)
    found: list[Estimate] = []
    prompt: Prompt | None = None
    limit = config.budget.candidates or DEFAULT_CANDIDATES
    if writes(config):
        writer = writer_of(config, taken.task, taken.rows)
        prompt = writer.prompt(Sought(wanted=WANTED))
        grown = "\n".join(m.text for m in messages(prompt)) + "x" * PARENTS
        most = config.reply_tokens or writer.max_tokens
        alone = 0 if config.budget.candidates is None and config.budget.seconds else ALONE * limit
        calls = math.ceil((START + EARN * limit + alone) / WANTED)
        found.append(
            estimate("proposals", grown, calls=calls, reply_tokens=REPLY, max_tokens=most,
                     most_calls=math.ceil(limit / WANTED), price=price, schema=writer.schema)
        )  # fmt: skip
    if votes:
        found.append(
            estimate("votes", "x" * A_VOTE, calls=3 * votes, reply_tokens=VOTE_REPLY, max_tokens=512,
                     most_calls=16 * votes, price=price)
        )  # fmt: skip
    return Plan(
        names, config.base_url or "the hosted API", prompt, found, votes, sent(config, writes=prompt is not None)
    )


def lines(plan: Plan, config: RunConfig) -> list[str]:
    """The plan for a person: what to expect, what is sent, and the first prompt as it would be."""
    many = "a decision before each block" if plan.decisions is None else f"up to {plan.decisions} decisions"
    found = [f"{many} by {', then '.join(plan.models)}; sent {plan.sent}", *told(plan.estimates, config.budget)]
    if plan.prompt is not None:
        text = "\n".join(m.text for m in messages(plan.prompt))
        found += [f"the first prompt to {plan.where}:", *(f"  | {line}" for line in text.splitlines())]
    return found


def record(plan: Plan) -> dict[str, Any]:
    """The plan as JSON."""
    prompt = None if plan.prompt is None else "\n".join(m.text for m in messages(plan.prompt))
    estimates = [asdict(e) for e in plan.estimates]
    return {
        "models": list(plan.models), "where": plan.where, "decisions": plan.decisions, "sent": plan.sent,
        "estimates": estimates, "first_prompt": prompt,
    }  # fmt: skip
