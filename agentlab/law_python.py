"""A law for other programs: Python source that imports NumPy only."""

from __future__ import annotations

import keyword
import math
from collections.abc import Mapping, Sequence

from agentlab.law_tree import FUNCTIONS, LawError, Node, Num, Sym, clip

Params = Mapping[str, Mapping[str, Mapping[str, float]]]

_OWN = ("np", "columns", "params", "rows", "value", "sigmoid", "predict", "PARAMS")
_SIGMOID = """

def sigmoid(x):
    small = np.exp(-np.abs(x))
    return np.where(x >= 0, 1.0, small) / (1.0 + small)
"""
_HEAD = '''"""The law {text}; needs NumPy only."""

import numpy as np
{sigmoid}

def {name}(columns, params):
    """{text}

    columns: name -> array of n numbers; params: name -> number. Returns n numbers, nan or inf where undefined.
    """
    rows = np.shape(next(iter(columns.values())))
{reads}
    with np.errstate(all="ignore"):
        value = {value}
    return np.broadcast_to(value, rows).astype(float)
'''
_TAIL = '''

PARAMS = {{
{literal}
}}


def predict(columns, group={group!r}, target={target!r}):
    """The law with the fitted parameters of one group and target: n numbers."""
    return {name}(columns, PARAMS[group][target])
'''


def python_of(
    node: Node, used: Sequence[str], params: Sequence[str], text: str, values: Params | None = None, name: str = "law"
) -> str:
    """Source of `name(columns, params)`; with `values`, also of PARAMS and `predict(columns, group, target)`."""
    if not name.isidentifier() or keyword.iskeyword(name) or name in _OWN:
        raise LawError(f"{clip(name)} cannot name the function; write another name, such as law")
    local = _locals((*used, *params), (*_OWN, name))
    reads = [f'    {local[v]} = np.asarray(columns["{v}"], dtype=float)' for v in used]
    reads += [f'    {local[p]} = np.float64(params["{p}"])' for p in params]
    sigmoid = _SIGMOID if "sigmoid(" in text else ""
    source = _HEAD.format(text=text, sigmoid=sigmoid, name=name, reads="\n".join(reads), value=_python(node, local))
    if values is None:
        return source
    group = next(iter(values), "all")
    target = next(iter(values.get(group, {})), "")
    return source + _TAIL.format(literal="\n".join(_literal(values)), group=group, target=target, name=name)


def _literal(values: Params) -> list[str]:
    lines = []
    for group, targets in values.items():
        lines.append(f"    {str(group)!r}: {{")
        for target, params in targets.items():
            inside = ", ".join([f"{str(p)!r}: {_float(float(v))}" for p, v in params.items()])
            lines.append(f"        {str(target)!r}: {{{inside}}},")
        lines.append("    },")
    return lines


def _float(value: float) -> str:
    return repr(value) if math.isfinite(value) else f'float("{value}")'


def _locals(names: Sequence[str], taken: Sequence[str]) -> dict[str, str]:
    """A Python identifier for every name, distinct from one another and from `taken`."""
    used = {*taken, *(n for n in names if not keyword.iskeyword(n))}
    out: dict[str, str] = {}
    for name in names:
        local = name
        while keyword.iskeyword(local) or local in taken or (local != name and local in used):
            local += "_"
        out[name] = local
        used.add(local)
    return out


def _python(node: Node, local: Mapping[str, str]) -> str:
    if isinstance(node, Sym):
        return local[node.name]
    if isinstance(node, Num):
        text = repr(float(node.value))
        return f"({text})" if node.value < 0 else text
    inner = [_python(a, local) for a in node.args]
    if node.op == "neg":
        return f"(-{inner[0]})"
    if node.op in ("min", "max"):
        out = inner[0]
        for other in inner[1:]:
            out = f"np.{node.op}imum({out}, {other})"
        return out
    if node.op == "sigmoid":
        return f"sigmoid({inner[0]})"
    if node.op in FUNCTIONS:
        return f"np.{node.op}({inner[0]})"
    return f"({inner[0]}**{inner[1]})" if node.op == "**" else f"({inner[0]} {node.op} {inner[1]})"
