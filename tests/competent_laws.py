"""What a scripted model has to say of a planted law: laws that it may try before, and programs of laws."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from string import Template

from agentlab.law import LawError, Node, from_tree, parse
from agentlab.law_edit import add, at, factors_of, groups, multiply, replace, terms_of


def wrong_laws(truth: str, names: Sequence[str]) -> list[str]:
    """Laws that a competent model might try before `truth`: parts of it, and laws of the textbook, in turn."""
    known = {parse(truth, names).key}
    found = []
    both = itertools.zip_longest(lacking(truth, names), textbook(names))
    for text in (text for pair in both for text in pair if text):
        key = parse(text, names).key
        if key not in known:
            known.add(key)
            found.append(text)
    return found


def lacking(truth: str, names: Sequence[str]) -> Iterator[str]:
    """The law with a term of a sum or a factor of a product left out, for every one of them."""
    tree = parse(truth, names).tree
    for path in groups(tree, terms_of):
        terms = terms_of(at(tree, path))
        yield from _written((replace(tree, path, add(rest)) for rest in _less_one(terms)), names)
    for path in groups(tree, factors_of):
        factors = factors_of(at(tree, path))
        yield from _written((replace(tree, path, multiply(rest)) for rest in _less_one(factors)), names)


def _less_one(parts: Sequence[object]) -> Iterator[list]:  # type: ignore[type-arg]
    return ([part for j, part in enumerate(parts) if j != i] for i in range(len(parts)))


def _written(trees: Iterator[Node], names: Sequence[str]) -> Iterator[str]:
    for tree in trees:
        try:
            law = from_tree(tree, names)
        except LawError:
            continue
        if law.used and law.params:
            yield law.text


def textbook(names: Sequence[str]) -> Iterator[str]:
    """Plausible laws over any columns, the usual ones first."""
    numbered = list(enumerate(names))
    yield "E + " + " + ".join(f"A{i}/{x}**a{i}" for i, x in numbered)
    yield "A*" + "*".join(f"{x}**a{i}" for i, x in numbered)
    yield "E + " + " + ".join(f"b{i}*log({x})" for i, x in numbered)
    yield "E + (" + " + ".join(f"A{i}/{x}**a{i}" for i, x in numbered) + ")**g"
    for x in names:
        yield f"E + A/log({x})**a"
        yield f"E + A/(B + {x}**a)"
        yield f"E + A*tanh(k*log({x}) - c)"
        yield f"E + A*exp(-k*log({x})**2)"
    for x, y in itertools.permutations(names, 2):
        yield f"E + A/{x}**a + B*log({y})"
        yield f"E + A/({x} + k*sqrt({y}))**a"
        yield f"E + A/{x}**a*(1 + B*tanh(b*log({y})))"
        yield f"E + min(A/{x}**a, B/{y}**b)"


PROGRAM = """import numpy as np


def law(X, params):
$columns
$params
    return $body


def fit(X, y):
    start = np.array($start)

    def residual(p):
        with np.errstate(all="ignore"):
            return np.log(law(X, p) / y) if (y > 0).all() else law(X, p) - y

    def loss(p):
        r = residual(p)
        return float(r @ r) if np.isfinite(r).all() else np.inf

    def slopes(p):
        steps = 1e-6 * (abs(p) + 1e-8) * np.eye(len(p))
        return np.stack([(residual(p + h) - residual(p - h)) / (2 * h.sum()) for h in steps], axis=1)

    dice = np.random.default_rng(0)
    best, found = np.inf, start
    for number in range(3):
        p = start * np.exp(0.3 * dice.standard_normal(len(start)) * (number > 0))
        cost, damping = loss(p), 1e-2
        for _ in range(40):
            r, J = residual(p), slopes(p)
            if not (np.isfinite(r).all() and np.isfinite(J).all()):
                break
            H = J.T @ J
            step = np.linalg.lstsq(H + damping * np.diag(np.diag(H) + 1e-30), J.T @ r, rcond=None)[0]
            gain = cost - loss(p - step)
            if gain > 0:
                p, cost, damping = p - step, cost - gain, max(damping / 5, 1e-12)
            else:
                damping *= 5
            if 0 < gain < 1e-9 * cost or damping > 1e12:
                break
        if cost < best:
            best, found = cost, p
    return found
"""

SIGMOID = """

def sigmoid(x):
    return 1 / (1 + np.exp(-x))
"""


def program_of(formula: str, names: Sequence[str], start: Mapping[str, float] | None = None) -> str:
    """The program of a formula: its law, and a fit by damped least squares from `start` (.3 where none is given)."""
    one = parse(formula, names)
    values = [float((start or {}).get(name, 0.3)) for name in one.params]
    body = re.sub(r"\b(exp|log|log2|log10|sqrt|abs|tanh)\(", r"np.\1(", one.text)
    body = re.sub(r"\bmin\(", "np.minimum(", re.sub(r"\bmax\(", "np.maximum(", body))
    columns = [f"    {name} = X[:, {i}]" for i, name in enumerate(names) if name in one.used]
    fields = {
        "start": repr(values),
        "columns": "\n".join(columns),
        "params": f"    {', '.join(one.params)}{',' * (len(one.params) == 1)} = params",
        "body": body,
    }
    text = Template(PROGRAM).substitute(fields)
    return text + SIGMOID if "sigmoid(" in body else text
