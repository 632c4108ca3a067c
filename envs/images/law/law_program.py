"""Runs one law that is a Python program: a line of JSON in, a line of JSON out, arrays as float64 bytes in base64.

    {"do": "ready"}                                     -> {}
    {"do": "load", "program": TEXT}                     -> {}
    {"do": "fit", "X": [shape, bytes], "y": [..]}       -> {"params": [shape, bytes]}
    {"do": "law", "X": [..], "params": [..]}            -> {"y": [shape, bytes]}

Each request brings an "id" that its answer repeats. The program defines `law(X, params)` and `fit(X, y)` with X [n, d]
and y [n]. What goes wrong in it comes back as {"error": text}. Whatever the program does to this process, it does to
its own results: nothing here is trusted by who reads the answers.
"""

import base64
import json
import os
import sys
from typing import Any

import numpy as np  # warm before the program comes; one that needs more, such as scipy, imports it itself


def array(sent: list[Any]) -> Any:  # noqa: ANN401 - an array, or what the program made of numpy
    """The array that [shape, bytes] means."""
    shape, data = sent
    return np.frombuffer(base64.b64decode(data), dtype=np.float64).reshape(shape).copy()


def sent(value: object) -> list[object]:
    """An array as [shape, bytes]."""
    plain = np.ascontiguousarray(np.asarray(value, dtype=np.float64))
    return [list(plain.shape), base64.b64encode(plain.tobytes()).decode()]


class Program:
    """The functions of the program that was loaded."""

    def __init__(self) -> None:
        self.names: dict[str, Any] = {}

    def load(self, text: str) -> None:
        """Runs the program's text, which defines its functions."""
        self.names = {"__name__": "program"}
        exec(compile(text, "program.py", "exec"), self.names)  # noqa: S102 - in the sandbox, which is what it is for
        for name in ("law", "fit"):
            if not callable(self.names.get(name)):
                raise TypeError(f"the program defines no function {name!r}; write law(X, params) and fit(X, y)")

    def answer(self, asked: dict[str, Any]) -> dict[str, object]:
        """What one request asks for."""
        what = asked["do"]
        if what == "ready":
            return {}
        if what == "load":
            self.load(asked["program"])
            return {}
        if what == "law":
            return {"y": sent(self.names["law"](array(asked["X"]), array(asked["params"])))}
        return {"params": sent(self.names["fit"](array(asked["X"]), array(asked["y"])))}


def reason(error: BaseException) -> str:
    """One line about an error, with the line of the program where it rose."""
    trace, line = error.__traceback__, 0
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == "program.py":
            line = trace.tb_lineno
        trace = trace.tb_next
    where = f" in line {line}" if line else ""
    return f"{type(error).__name__}{where}: {' '.join(str(error).split())}"[:500]


def main() -> None:
    """Answers until standard input ends; what the program prints goes to standard error."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    program = Program()
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            answer = program.answer(asked)
        except BaseException as error:  # noqa: BLE001 - a program may raise anything, and all of it is its answer
            answer = {"error": reason(error)}
        answers.write(json.dumps({"id": asked["id"], **answer}) + "\n")
        answers.flush()
