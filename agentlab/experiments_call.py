"""One experiment: a tool starts it as a job, it is followed to its end, and its answer becomes a record."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from agentlab.experiments_stop import Curves
from agentlab.space import Design
from agentlab.toolbox import Toolbox
from agentlab.trace import Record
from agentlab.types import BackendError, EvaluationError

FIRST_LOOK, LONGEST_LOOK = 0.05, 1.0
"""Seconds between two looks at a job: short at first, for runs that are over at once."""

GOING = ("starting", "running")

LATER = ("wait for one", "try again")
"""Words of refusals that only mean that it is too early."""

TRIES = 60
"""How often a job is asked for that the server has no room for yet, or that was killed from outside."""


@dataclass(frozen=True)
class Runner:
    """Carries experiments out.

    `arguments` go to the tool beside the config; `taken` are keys of the config that `prepare` gave. `stopped` says
    whether a person asked to stop: runs under way are then cancelled, and their checkpoints stay.
    """

    design: Design
    toolbox: Toolbox
    arguments: Mapping[str, Any]
    taken: Mapping[str, Any]
    stopped: Callable[[], bool]

    async def run(self, asked: Record, curves: Curves | None = None) -> Record:
        """The outcome of the experiment `asked`: measured, or a named reject; `curves` say when a run has answered.

        Raises:
            BackendError: no server answers; the job goes on, and the same call finds it again.
        """
        config = {**asked["config"], **self.taken}
        whole = {**self.arguments, "config": config, "name": f"x{asked['id']:04d}"}
        for again in range(TRIES):
            try:
                told = await self._followed(asked, await self.toolbox.call(self.design.tool, whole), curves)
            except EvaluationError as error:
                if again < TRIES - 1 and any(word in str(error) for word in LATER):
                    await asyncio.sleep(LONGEST_LOOK)
                    continue
                return _rejected(asked, f"refused: {error}")
            if told is not None:
                return told
        return _rejected(asked, f"failed: it was killed from outside {TRIES} times")

    async def _followed(self, asked: Record, answer: Mapping[str, Any], curves: Curves | None) -> Record | None:
        """The outcome of a job: followed to its end, or to where its curve has answered; None where it was killed."""
        told: Record = {}
        wait = FIRST_LOOK
        while answer.get("state") in GOING:
            if self.stopped() and self.design.cancel:
                answer = await self.toolbox.call(self.design.cancel, {"job": answer["job"]})
                break
            early = await self._answered(asked, answer, curves)
            if early is not None:
                await self.toolbox.call(self.design.cancel, {"job": answer["job"]})
                return early
            await asyncio.sleep(wait)
            wait = min(1.5 * wait, LONGEST_LOOK)
            answer = await self.toolbox.call(self.design.poll, {"job": answer["job"]})
        # A run that ended between two looks is judged by the same points, so that the trace does not depend on them.
        state = answer.get("state")
        if state == "interrupted":
            return None
        early = await self._answered(asked, answer, curves) if state != "cancelled" else None
        if early is not None:
            return early
        if self.design.progress and answer.get("state") == "done":
            told = {"curve": await self._curve(asked, answer)}
        return self._outcome(asked, answer) | told

    async def _answered(self, asked: Record, answer: Mapping[str, Any], curves: Curves | None) -> Record | None:
        """The outcome of a run whose curve tells already what it will come to; None while it does not."""
        if curves is None or not self.design.progress or not self.design.cancel:
            return None
        found = curves.answered(points := await self._curve(asked, answer))
        if found is None:
            return None
        passed = [list(p) for p in points if p[0] <= found.share]
        told = {"kind": "measured", "id": asked["id"], "status": "ok", "flops": found.share * float(asked["flops"])}
        told |= {"targets": dict.fromkeys(self.design.targets, found.value), "digest": None, "stopped": found.share}
        return told | {"scatter": found.scatter, "curve": passed, "simulated": bool(answer.get("simulated"))}

    async def _curve(self, asked: Record, answer: Mapping[str, Any]) -> list[tuple[float, float]]:
        """The value after each segment that is done, by its share of the FLOPs; the last one is the end itself."""
        told = await self.toolbox.call(self.design.progress, {"job": answer["job"]})
        known = [(float(s["flops"]) / float(asked["flops"]), s.get("valid_loss")) for s in told["segments"]]
        return [(round(f, 6), float(v)) for f, v in known if v is not None and f < 1]

    def _outcome(self, asked: Record, answer: Mapping[str, Any]) -> Record:
        flops = float(answer.get("flops_spent") or answer.get("flops") or 0.0)
        state = answer.get("state")
        if state == "cancelled":
            return _rejected(asked, "stopped", flops)
        if state == "diverged":
            return _rejected(asked, "diverged", flops or float(asked["flops"]))
        if state != "done":
            return _rejected(asked, f"failed: {_line(answer.get('message'))}", flops)
        targets = {name: _at(answer, path) for name, path in self.design.targets.items()}
        if any(value is None for value in targets.values()):
            return _rejected(asked, "no result", flops or float(asked["flops"]))
        told = {"kind": "measured", "id": asked["id"], "status": "ok", "flops": flops or float(asked["flops"])}
        return told | {"targets": targets, "digest": answer.get("digest"), "simulated": bool(answer.get("simulated"))}


def _rejected(asked: Record, reason: str, flops: float = 0.0) -> Record:
    return {"kind": "measured", "id": asked["id"], "status": "rejected", "reason": reason, "flops": flops}


def _line(message: object) -> str:
    """The last line of a message: the error itself, where a program died of one."""
    return (str(message or "").strip().splitlines() or ["no message"])[-1][:300]


def _at(answer: Mapping[str, Any], path: str) -> float | None:
    """The number at a dotted path such as "measured.ttft_ms" or "cells.0.seconds"; None where there is none."""
    found: Any = answer
    for part in path.split("."):
        if isinstance(found, list) and part.isdigit() and int(part) < len(found):
            found = found[int(part)]
        elif isinstance(found, Mapping) and part in found:
            found = found[part]
        else:
            return None
    return float(found) if isinstance(found, int | float) and not isinstance(found, bool) else None


async def prepared(design: Design, toolbox: Toolbox) -> dict[str, Any]:
    """What the config takes from the tool that is called once before the first run."""
    if design.prepare is None:
        return {}
    while True:
        answer = await toolbox.call(design.prepare.tool, design.prepare.arguments)
        if answer.get("state", "done") not in (*GOING, "done"):
            raise BackendError(f"{design.prepare.tool}: {_line(answer.get('message'))}")
        if answer.get("state", "done") not in GOING:
            return {key: answer[name] for key, name in design.prepare.take.items()}
        await asyncio.sleep(LONGEST_LOOK)
