"""A law for readers and for other programs: LaTeX, and Python source that imports NumPy only."""

from __future__ import annotations

import keyword
from collections.abc import Mapping, Sequence

from agentlab.law_tree import FUNCTIONS, Call, LawError, Node, Num, Sym, clip, number

_GREEK = (
    "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi pi rho sigma tau upsilon phi chi psi omega "
    "Gamma Delta Theta Lambda Xi Pi Sigma Upsilon Phi Psi Omega"
).split()


def latex_symbol(name: str) -> str:
    r"""A name as LaTeX: Greek letters by name, what follows `_` or trails as digits as a subscript (a1, lr_0, A_start)."""
    head, *rest = [part for part in name.split("_") if part] or [name]
    stem = head.rstrip("0123456789")
    if stem and stem != head:
        rest.insert(0, head[len(stem) :])
        head = stem
    marks = {"star": r"^{*}", "prime": "'", "hat": None}
    accent = ""
    if rest and rest[-1] in ("star", "prime"):
        accent = marks[rest.pop()] or ""
    out = _word(head)
    if rest and rest[-1] == "hat":
        rest.pop()
        out = rf"\hat{{{out}}}"
    if rest:
        out += f"_{{{','.join(_word(part) for part in rest)}}}"
    return out + accent


def _word(part: str) -> str:
    if part in _GREEK:
        return "\\" + part
    return part if len(part) == 1 or part.isdigit() else rf"\mathrm{{{part}}}"


def _latex_number(value: float) -> str:
    text = number(value)
    if "e" not in text:
        return text
    mantissa, exponent = text.split("e")
    tail = f"10^{{{int(exponent)}}}"
    return {"1": tail, "-1": "-" + tail}.get(mantissa, rf"{mantissa} \times {tail}")


def latex_of(node: Node) -> str:
    """The tree as LaTeX."""
    return _latex(node)[0]


_LATEX_NAMES = {"log": r"\ln", "log2": r"\log_{2}", "log10": r"\log_{10}", "tanh": r"\tanh", "min": r"\min", "max": r"\max"}


def _latex(node: Node) -> tuple[str, int]:
    """LaTeX and the precedence of the outermost operation: 1 sum, 2 product, 3 sign, 4 power, 5 atom."""
    if isinstance(node, Sym):
        return latex_symbol(node.name), 5
    if isinstance(node, Num):
        text = _latex_number(node.value)
        return text, 3 if node.value < 0 else 2 if "times" in text else 4 if "^" in text else 5
    if node.op in FUNCTIONS:
        return _latex_function(node)
    if node.op == "neg":
        return "-" + _closed(node.args[0], 2), 3
    left, right = node.args
    if node.op in "+-":
        second, level = _latex(right)
        bare = level > 1 and not second.startswith("-")
        return f"{_closed(left, 1)} {node.op} {second if bare else _bracket(second)}", 1
    if node.op == "*":
        return _latex_product(left, right), 2
    if node.op == "/":
        return rf"\frac{{{_latex(left)[0]}}}{{{_latex(right)[0]}}}", 4
    base, level = _latex(left)
    if level < 5:
        base = _bracket(base)
    elif "^" in base or base.endswith("'"):
        base = f"{{{base}}}"
    return f"{base}^{{{_latex(right)[0]}}}", 4


def _latex_product(left: Node, right: Node) -> str:
    first = _closed(left, 2)
    second, level = _latex(right)
    if level in (1, 3) or (level == 2 and isinstance(right, Num)):
        second = _bracket(second)
    dot = second[0].isdigit() or (isinstance(left, Num) and isinstance(right, Num))
    return rf"{first} \cdot {second}" if dot else f"{first} {second}"


def _latex_function(node: Call) -> tuple[str, int]:
    inner = [_latex(a)[0] for a in node.args]
    if node.op == "exp":
        return f"e^{{{inner[0]}}}", 4
    if node.op == "sqrt":
        return rf"\sqrt{{{inner[0]}}}", 4
    if node.op == "abs":
        return rf"\left|{inner[0]}\right|", 5
    if node.op == "sigmoid":
        return rf"\sigma{_bracket(inner[0])}", 4
    if node.op in ("log", "log2", "log10", "tanh") and isinstance(node.args[0], Sym):
        return f"{_LATEX_NAMES[node.op]} {inner[0]}", 2
    return _LATEX_NAMES[node.op] + _bracket(", ".join(inner)), 4


def _closed(node: Node, least: int) -> str:
    text, level = _latex(node)
    return text if level >= least else _bracket(text)


def _bracket(text: str) -> str:
    return rf"\left({text}\right)"




def python_of(
    node: Node,
    used: Sequence[str],
    params: Sequence[str],
    text: str,
    values: Mapping[str, Mapping[str, Mapping[str, float]]] | None,
    name: str,
) -> str:
    """Python source: `name(columns, params)`, and with `values` also PARAMS and `predict(columns, group, target)`."""
    if not name.isidentifier() or keyword.iskeyword(name):
        raise LawError(f"{clip(name)} cannot name a Python function; write letters, digits and _")
    local = _locals((*used, *params), {name, "np", "columns", "params", "sigmoid", "value", "predict", "PARAMS"})
    lines = [f'"""The law {text}, fitted; needs NumPy only."""', "", "import numpy as np", "", ""]
    if "sigmoid(" in text:
        lines += ["def sigmoid(x):", "    small = np.exp(-np.abs(x))", _SIGMOID, "", ""]
    lines += [
        f"def {name}(columns, params):",
        f'    """{text}: columns maps names to arrays of n numbers, params names to numbers; returns n numbers."""',
    ]
    lines += [f'    {local[v]} = np.asarray(columns["{v}"], dtype=float)' for v in used]
    lines += [f'    {local[p]} = np.float64(params["{p}"])' for p in params]
    lines += ['    with np.errstate(all="ignore"):', f"        value = {_python(node, local)}"]
    lines += ["    return np.broadcast_to(value, np.shape(next(iter(columns.values())))).astype(float)"]
    if values is not None:
        lines += ["", "", "PARAMS = {", *_literal(values), "}", "", ""]
        first = next(iter(values), "all")
        target = next(iter(values.get(first, {})), "")
        lines += [f"def predict(columns, group={first!r}, target={target!r}):"]
        lines += ['    """The law with the fitted parameters of one group and target."""']
        lines += [f"    return {name}(columns, PARAMS[group][target])"]
    return "\n".join(lines) + "\n"


_SIGMOID = "    return np.where(x >= 0, 1.0, small) / (1.0 + small)"


def _literal(values: Mapping[str, Mapping[str, Mapping[str, float]]]) -> list[str]:
    lines = []
    for group, targets in values.items():
        lines.append(f"    {str(group)!r}: {{")
        for target, params in targets.items():
            inside = ", ".join(f"{p!r}: {float(v)!r}" for p, v in params.items())
            lines.append(f"        {str(target)!r}: {{{inside}}},")
        lines.append("    },")
    return lines


def _locals(names: Sequence[str], taken: set[str]) -> dict[str, str]:
    """A Python identifier for every name, distinct from one another and from `taken`."""
    out: dict[str, str] = {}
    used = taken | {n for n in names if not keyword.iskeyword(n)} - set()
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
    return f"({inner[0]} {node.op} {inner[1]})" if node.op != "**" else f"({inner[0]}**{inner[1]})"
