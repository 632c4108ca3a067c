"""How fast laws are read, keyed, evaluated and refused: `python bench/law.py`.

Bars: parse 150 us and key 250 us for `E + A/N**a + B/D**b`; any hostile text refused within 50 ms; evaluation of 24
starts over 200 rows close to the same arithmetic written by hand in NumPy.
"""

from __future__ import annotations

import json
import timeit
from collections.abc import Callable
from functools import partial

import numpy as np
from machine import about, save

from agentlab.law import Law, LawError, parse

VARIABLES = ("N", "D", "x")
LAWS = (
    "E + A/N**a + B/D**b",
    "E + (A/(N*(k*log(x) + 1)))**a",
    "A*D**-a + B*N**-b + C + d*(x - F*N**g)**2",
    "exp(a3*N**g + b3) + exp(a2*N**b + b2)*D**-exp(a1*N**a + b1)",
    "R0 + (A - R0)/(1 + (C/N)**B)",
)
HOSTILE = {
    "attribute": "x.__class__",
    "call": "__import__('os')",
    "1e6 characters": "x+" * 500_000 + "x",
    "1e6 brackets": "(" * 1_000_000,
    "400 brackets": "(" * 400 + "x" + ")" * 400,
    "3000 signs": "-" * 3000 + "x",
    "900 powers": "x**" * 900 + "x",
    "1900 terms": "x+" * 1900 + "x",
    "9**9**9": "9**9**9",
    "5000 digits": "1" * 5000,
    "3900 digits": "1" * 3900,
    "NUL": "x\0",
    "Cyrillic": "\u0445 + 1",
}


def best(call: Callable[[], object], number: int = 100, repeat: int = 15) -> float:
    """Microseconds a call, the best of several rounds: what the code costs when nothing else runs."""
    return 1e6 * min(timeit.repeat(call, number=number, repeat=repeat)) / number


def refused(text: str) -> str:
    """The one line with which a text is refused."""
    try:
        parse(text, VARIABLES)
    except LawError as error:
        return str(error)
    raise AssertionError(text)


def by_hand(params: np.ndarray, log_n: np.ndarray, log_d: np.ndarray) -> np.ndarray:
    """E + A/N**a + B/D**b with the logarithms at hand."""
    e, a, alpha, b, beta = (params[:, i, None] for i in range(5))
    return np.asarray(e + a / np.exp(alpha * log_n) + b / np.exp(beta * log_d))


def speeds(text: str) -> dict[str, float]:
    """Microseconds to read, to key, to evaluate and to differentiate one law, 24 starts over 200 rows."""
    law = parse(text, VARIABLES)
    rng = np.random.default_rng(0)
    columns = {"N": 10 ** rng.uniform(6, 9, 200), "D": 10 ** rng.uniform(8, 11, 200), "x": rng.uniform(1, 3, 200)}
    params = rng.uniform(0.1, 0.5, (24, law.n_params))
    program = law.compile(columns)
    return {
        "parse": best(lambda: parse(text, VARIABLES)),
        "key": best(lambda: Law(law.tree, law.variables, law.used, law.params, law.complexity).key),
        "compile": best(lambda: law.compile(columns)),
        "value": best(lambda: program(params)),
        "jacobian": best(lambda: program.with_jacobian(params)),
        "by_hand": best(lambda: by_hand(params, np.log(columns["N"]), np.log(columns["D"])))
        if text == LAWS[0]
        else 0.0,
    }


def main() -> None:
    """Measure, print two tables and a JSON line, keep the result."""
    laws = {text: {k: round(v, 1) for k, v in speeds(text).items()} for text in LAWS}
    hostile = {name: round(best(partial(refused, text), 1, 5) / 1e3, 3) for name, text in HOSTILE.items()}
    print(f"{'microseconds':64}{'parse':>9}{'key':>9}{'compile':>9}{'value':>9}{'jacobian':>9}{'by hand':>9}")
    for text, row in laws.items():
        print(f"{text:64}" + "".join(f"{value:9.1f}" for value in row.values()))
    print("\nrefused within, ms: " + ", ".join(f"{name} {ms}" for name, ms in hostile.items()))
    result = {"bench": "law", "microseconds": laws, "hostile_ms": hostile}
    save(result)
    print(json.dumps(result | {"machine": about()}))


if __name__ == "__main__":
    main()
