"""Arrays to and from a sandboxed program, as [shape, base64 of float64]; what comes back is read as a stranger's."""

from __future__ import annotations

import base64
import binascii
import json
import math
from typing import Any

import numpy as np

from agentlab.program_text import ProgramError
from agentlab.types import FloatArray


def sent(array: FloatArray) -> list[object]:
    """An array as [shape, base64 of its float64 bytes]."""
    plain = np.ascontiguousarray(array, dtype=np.float64)
    return [list(plain.shape), base64.b64encode(plain.tobytes()).decode()]


def read_answer(line: bytes) -> dict[str, Any]:
    """A JSON object from a program that may write anything: no nan, no depth, no huge number gets through."""
    try:
        answer = json.loads(line, parse_constant=_refuse, parse_int=_short, parse_float=_short)
    except (ValueError, RecursionError) as error:
        raise ProgramError("the answer is no JSON") from error
    if not isinstance(answer, dict):
        raise ProgramError("the answer is no JSON object")
    return answer


def _refuse(word: str) -> float:
    raise ValueError(word)


def _short(text: str) -> int:
    """Only whole numbers of at most nine digits occur in an answer: ids and shapes."""
    if len(text) > 9:
        raise ValueError(text[:20])
    return int(text)


def array_of(told: object, name: str, *, finite: bool = True) -> FloatArray:
    """The float64 array that [shape, base64] means; with `finite` every number of it is."""
    try:
        shape, data = told if isinstance(told, list) else ((), "")
        raw = base64.b64decode(data, validate=True)
    except (TypeError, ValueError, binascii.Error) as error:
        raise ProgramError(f"{name} is no array") from error
    if not isinstance(shape, list) or len(shape) > 2 or not all(type(s) is int and s >= 0 for s in shape):
        raise ProgramError(f"{name} has no shape that a law can have")
    if len(raw) != 8 * math.prod(shape):
        raise ProgramError(f"{name} has {len(raw)} bytes for shape {tuple(shape)}")
    array = np.frombuffer(raw, dtype="<f8").astype(np.float64).reshape(shape)
    if finite and not np.all(np.isfinite(array)):
        raise ProgramError(f"{name} is not finite in {int(np.sum(~np.isfinite(array)))} of {array.size} places")
    return array


def printable(text: object) -> str:
    """One short line of printable characters."""
    plain = "".join(c if c.isprintable() else " " for c in str(text)[:400])
    return " ".join(plain.split())
