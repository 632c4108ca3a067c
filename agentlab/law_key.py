"""The key of a canonical form, in which names of parameters do not matter, and its coarse structure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from agentlab.law_canon import canonical
from agentlab.law_form import ADD, FN, MUL, NUM, PAR, POW, VAR, Form, parameters
from agentlab.law_tree import Node

MAX_TEXTS = 400
"""How many times a law is written out at most to tell its parameters apart."""


def forms_of(node: Node, variables: Collection[str]) -> list[Form]:
    """The canonical forms that `key_of` and `structure_of` read; the first has the smallest key."""
    forms = canonical(node, variables)
    return forms if len(forms) == 1 else [min(forms, key=lambda f: key_of([f]))]


def key_of(forms: Sequence[Form]) -> str:
    """The text of the form with parameters that occur once written "?", the others numbered by where they stand."""
    form = forms[0]
    count = Counter(parameters(form))
    shared = sorted(name for name, n in count.items() if n > 1)
    if len(shared) < 2:
        return _written(form, dict.fromkeys(shared, "p0"))
    return _least(form, dict.fromkeys(shared, "p"), [MAX_TEXTS])


def _least(form: Form, colour: dict[str, str], budget: list[int]) -> str:
    """The smallest text over the orders of parameters that refinement by their surroundings cannot tell apart."""
    colour = _refined(form, colour, budget)
    classes: dict[str, list[str]] = {}
    for name, c in colour.items():
        classes.setdefault(c, []).append(name)
    tied = [c for c in sorted(classes) if len(classes[c]) > 1]
    if not tied:
        order = {c: f"p{i}" for i, c in enumerate(sorted(classes))}
        return _written(form, {name: order[c] for name, c in colour.items()})
    texts: list[str] = []
    for name in classes[tied[0]]:
        if not texts or budget[0] > 0:
            texts.append(_least(form, {**colour, name: colour[name] + "!"}, budget))
    return min(texts)


def _refined(form: Form, colour: dict[str, str], budget: list[int]) -> dict[str, str]:
    """Colours split by how the law reads with one parameter marked, until no colour splits further."""
    while True:
        budget[0] -= len(colour)
        marked = {n: (c, _written(form, {**colour, n: "@"})) for n, c in colour.items()}
        ranks = {mark: f"p{i:03d}" for i, mark in enumerate(sorted(set(marked.values())))}
        if len(ranks) == len(set(colour.values())):
            return colour
        colour = {n: ranks[mark] for n, mark in marked.items()}


def _written(form: Form, label: Mapping[str, str]) -> str:
    """The form as text, sums and products sorted by their text."""
    kind = form.kind
    if kind == NUM:
        return f"{form.value + 0.0:.10g}"
    if kind == PAR:
        return label.get(form.name, "?")
    if kind == VAR:
        return form.name
    if kind == POW:
        base, exponent = form.args
        left, right = _written(base, label), _written(exponent, label)
        return f"{left if base.kind in (VAR, PAR, FN) else f'({left})'}**{_atom(right)}"
    if kind == MUL:
        return "*".join(sorted([_grouped(a, label) for a in form.args]))
    if kind == ADD:
        return "+".join(sorted([_term(c, m, label) for c, m in form.terms]))
    args = [_written(a, label) for a in form.args]
    if form.name == "min":
        args.sort()
    return f"{form.name}({','.join(args)})"


def _term(coefficient: Form, mono: Form, label: Mapping[str, str]) -> str:
    if coefficient.s == "1":
        return _grouped(mono, label)
    if mono.s == "1":
        return _written(coefficient, label)
    return f"{_grouped(coefficient, label)}*{_grouped(mono, label)}"


def _grouped(form: Form, label: Mapping[str, str]) -> str:
    text = _written(form, label)
    return f"({text})" if form.kind == ADD else text


def _atom(text: str) -> str:
    return text if text.isalnum() or text == "?" else f"({text})"


def structure_of(forms: Sequence[Form]) -> str:
    """The terms of the outermost sum by kind and variables, sorted, such as "1 + D^ + N^"."""
    form = forms[0]
    terms = [m for _, m in form.terms] if form.kind == ADD else [form]
    return " + ".join(sorted(_kind(m) for m in terms))


def _kind(mono: Form) -> str:
    if mono.pure:
        return "1"
    return "*".join(sorted(_factor_kind(f) for f in (mono.args if mono.kind == MUL else (mono,))))


def _factor_kind(factor: Form) -> str:
    if factor.kind == VAR:
        return factor.name
    if factor.kind == POW and factor.args[0].kind == VAR:
        return factor.args[0].name + "^"
    names = ",".join(sorted(set(_variables(factor))))
    if factor.kind == POW:
        return f"({names})^"
    return f"{factor.name}({names})" if factor.kind == FN else f"({names})"


def _variables(form: Form) -> list[str]:
    if form.kind == VAR:
        return [form.name]
    out = [name for arg in form.args for name in _variables(arg)]
    return out + [name for term in form.terms for part in term for name in _variables(part)]
