"""Runs with planted truth: the loss is a known law of the config, with seeded noise. Nothing is trained.

For trying out a search, a plan or a client where the answer must be known. What comes out is labelled as simulated
everywhere. The loss on the way is the law at the tokens or FLOPs seen so far, the usual idealisation of a training
curve; only the final `valid_loss` has the noise.
"""

from __future__ import annotations

import hashlib
import json
import math
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from agentlab.tools._job_files import Fields
from agentlab.tools._train_records import Truth
from agentlab.tools._trainer import Order, plan, program
from mcp.server.mcpserver.exceptions import ToolError

from agentlab.errors import nearest
from agentlab.files import write_json
from agentlab.law import Law, LawError, parse
from agentlab.types import FloatArray

GROWING = ("tokens", "flops", "steps", "D", "C")
"""Variables that grow from nothing during a run; every other one holds for the whole run."""
POINTS = 20
"""Progress lines a run, unless it has more segments."""
MOST_SEGMENTS = 1000


async def order(config: Fields, truth: Truth | None) -> Order:
    """A simulated run; the law's variables are numbers of the config, or of its plan where it is the trainer's.

    Raises:
        ToolError: no truth, a formula that is none, a parameter without a value, a variable that nothing gives, or
            a loss that is not finite.
    """
    if truth is None:
        raise ToolError("truth: the simulator has none; give truth={law, params, noise, seconds}")
    asked = {**config, "backend": "simulator", "truth": truth.model_dump()}
    names = _names(truth)
    given = _numbers(config)
    planned: Fields = {}
    if not set(names) <= set(given):
        planned = await _planned(config, names, given)
    known = {**given, **_numbers(planned)}
    law = _law(truth, tuple(known))
    run = _run(asked, truth, law, known)
    flops = max((f for f in (_flops(given), _flops(known)) if f is not None), default=None)

    def argv_of(folder: Path) -> list[str]:
        write_json(folder / "run.json", {**run, "out": str(folder)})
        return [sys.executable, program("simulate.py"), str(folder / "run.json")]

    return Order(asked, argv_of, flops, {**planned, "seconds": truth.seconds})


def _numbers(fields: Fields) -> dict[str, float]:
    return {k: float(v) for k, v in fields.items() if isinstance(v, int | float) and not isinstance(v, bool)}


def _names(truth: Truth) -> list[str]:
    """The names in the formula that have no value."""
    return [name for name in _parsed(truth.law, ()).params if name not in truth.params]


def _parsed(text: str, variables: tuple[str, ...]) -> Law:
    try:
        return parse(text, variables)
    except LawError as error:
        raise ToolError(f"truth.law: {error}") from error


async def _planned(config: Fields, names: list[str], known: Mapping[str, float]) -> Fields:
    """The trainer's plan of the config; what is missing is named where it has none."""
    missing = next(name for name in names if name not in known)
    try:
        return await plan({"corpus": "none", **{k: v for k, v in config.items() if k != "out"}})
    except ToolError as error:
        what = f"{missing}: neither the config nor truth.params has a value for it"
        raise ToolError(f"{what}, and the config is none of the trainer's ({error})") from error


def _law(truth: Truth, known: tuple[str, ...]) -> Law:
    variables = tuple(name for name in known if name not in truth.params)
    law = _parsed(truth.law, variables)
    for name in law.params:
        if name not in truth.params:
            raise ToolError(f"{name}: no value for it in truth.params or the config; {nearest(name, variables)}")
    for name in truth.params:
        if name not in law.params:
            raise ToolError(f"truth.params: {name} is not in the law; {nearest(name, law.params)}")
    return law


def _flops(known: Mapping[str, float]) -> float | None:
    """Training FLOPs as the config or its plan says, else 6 N D where it has these."""
    told = [known[k] for k in ("flops", "C") if k in known]
    if "N" in known and "D" in known:
        told.append(6 * known["N"] * known["D"])
    return max(told, default=None)


def _run(asked: Fields, truth: Truth, law: Law, known: Mapping[str, float]) -> dict[str, object]:
    """What envs/images/train/simulate.py plays."""
    steps = int(known.get("steps", 0)) or POINTS
    segments = min(steps, MOST_SEGMENTS, max(1, int(known.get("segments", 1))))
    count = max(segments, min(POINTS, steps))
    share = np.arange(1, count + 1) / count
    losses = _losses(truth, law, known, share)
    if not math.isfinite(losses[-1]):
        raise ToolError(f"truth.law is {losses[-1]} at this config; give parameters for which it is a number")
    points: list[dict[str, float | None]] = []
    for at, loss in zip(share.tolist(), losses.tolist(), strict=True):
        point: dict[str, float | None] = {"step": round(steps * at), "loss": loss if math.isfinite(loss) else None}
        point |= {k: known[k] * at for k in ("flops", "tokens") if k in known}
        points.append(point)
    final = float(losses[-1]) * (1 + truth.noise * _chance(asked))
    result = {
        "status": "ok",
        "valid_loss": final,
        "step": steps,
        **{k: points[-1][k] for k in ("flops", "tokens") if k in known},
    }
    ends = [-(-count * (i + 1) // segments) for i in range(segments)]
    return {"points": points, "segment_ends": ends, "result": result, "seconds": truth.seconds}


def _losses(truth: Truth, law: Law, known: Mapping[str, float], share: FloatArray) -> FloatArray:
    """The law at each share of the run, (n,)."""
    columns = {k: known[k] * share if k in GROWING else np.full(len(share), known[k]) for k in law.used}
    values = np.array([truth.params[name] for name in law.params])
    return np.broadcast_to(law.evaluate(columns, values), share.shape)


def _chance(asked: Fields) -> float:
    """A standard normal number, the same whenever the same is asked; the seed is a part of the config."""
    truth = asked["truth"]
    assert isinstance(truth, dict)  # noqa: S101 - put there by `order`
    what = {**asked, "truth": {k: v for k, v in truth.items() if k != "seconds"}}
    digest = hashlib.sha256(json.dumps(what, sort_keys=True).encode()).digest()
    return float(np.random.default_rng(int.from_bytes(digest[:16], "big")).standard_normal())
