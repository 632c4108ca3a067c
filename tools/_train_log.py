"""What a job's log says of its segments and its losses; a step that a resumed job did again counts as it was last."""

from __future__ import annotations

from collections.abc import Iterable

from agentlab.tools._job_files import Fields
from agentlab.tools._train_records import Point, Segment
from mcp.server.mcpserver.exceptions import ToolError
from pydantic import ValidationError


def segments(lines: Iterable[Fields]) -> list[Segment]:
    """The finished segments in order, each with the loss before its end and the validation at it, if there was one."""
    found: dict[str, Fields] = {}
    loss = None
    for line in lines:
        loss = line.get("loss", loss)
        if line.get("event") == "segment":
            found[str(line.get("segment"))] = {**_of(line, Segment), "loss": loss}
        elif line.get("event") == "validation":
            for segment in found.values():
                if segment.get("step") == line.get("step"):
                    segment["valid_loss"] = line.get("valid_loss")
    try:
        return sorted((Segment.model_validate(s) for s in found.values()), key=lambda s: s.segment)
    except ValidationError as error:
        raise _damaged(error) from error


def curve(lines: Iterable[Fields], most: int) -> list[Point]:
    """Losses by step, at most `most` points, evenly thinned; the last is kept."""
    found: dict[str, Fields] = {}
    for line in lines:
        if "step" in line and ("loss" in line or "valid_loss" in line) and line.get("event") != "done":
            at = str(line["step"])
            found[at] = found.get(at, {}) | _of(line, Point)
    try:
        points = sorted((Point.model_validate(p) for p in found.values()), key=lambda p: p.step)
    except ValidationError as error:
        raise _damaged(error) from error
    stride = -(-len(points) // most) or 1
    return points[(len(points) - 1) % stride :: stride]


def _of(line: Fields, record: type[Point | Segment]) -> Fields:
    return {k: v for k, v in line.items() if k in record.model_fields and v is not None}


def _damaged(error: ValidationError) -> ToolError:
    return ToolError(f"the log is damaged in {error.error_count()} fields; delete the job's folder and start it anew")
