"""A model is asked on a budget: the worst case of the call is set aside before it, and what it took is booked after."""

from __future__ import annotations

from agentlab.budget import Purse
from agentlab.budget_cost import Cost, worst_of
from agentlab.errors import BackendError
from agentlab.models import Model, ModelError, Prompt, Reply, Schema, prompt_bound
from agentlab.models_prices import Price


async def charged(
    model: Model, prompt: Prompt, purse: Purse, *, temperature: float, seed: int, max_tokens: int,
    schema: Schema | None = None, price: Price | None = None,
) -> Reply:  # fmt: skip
    """Ask once, within the caps of a run.

    A call that failed costs nothing, one whose reply was lost or not waited for the worst case.

    Args:
        model: Who is asked.
        prompt: What is asked.
        purse: The caps, and what is spent already.
        temperature: Of the reply.
        seed: Of the reply.
        max_tokens: The longest reply.
        schema: What the reply shall keep to, for servers that can see to it.
        price: What the model's tokens cost; it is needed where money has a cap.

    Raises:
        OverBudgetError: the worst case does not fit.
        UnpricedError: there is a cap on money and no price.
        BrokenBoundError: the server counts more than was asked of it.
        BackendError: as `complete` does.
    """
    with await purse.reserve(prompt_bound(prompt, schema), max_tokens, price) as claim:
        try:
            reply = await model.complete(
                prompt, temperature=temperature, seed=seed, max_tokens=max_tokens, schema=schema
            )
        except BackendError as error:
            if not (isinstance(error, ModelError) and error.lost):
                claim.free()
            raise
        claim.settle(reply)
    return reply


def worst_call(prompt: Prompt, max_tokens: int, *, schema: Schema | None = None, price: Price | None = None) -> Cost:
    """The most that a call can cost, which is what `charged` sets aside for it and books where its reply is lost."""
    return worst_of(prompt_bound(prompt, schema), max_tokens, price)
