r"""A law for readers: LaTeX with fractions, exponents, Greek letters and subscripts."""

from __future__ import annotations

from agentlab.law_tree import FUNCTIONS, Call, Node, Num, Sym, number

_GREEK = frozenset(
    {"alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa", "lambda", "mu", "nu", "xi"}
    | {"pi", "rho", "sigma", "tau", "upsilon", "phi", "chi", "psi", "omega"}
    | {"Gamma", "Delta", "Theta", "Lambda", "Xi", "Pi", "Sigma", "Upsilon", "Phi", "Psi", "Omega"}
)
_NAMES = {
    "log": r"\ln",
    "log2": r"\log_{2}",
    "log10": r"\log_{10}",
    "tanh": r"\tanh",
    "sigmoid": r"\operatorname{sigmoid}",
    "min": r"\min",
    "max": r"\max",
}
_SUM, _PRODUCT, _SIGN, _POWER, _ATOM = 1, 2, 3, 4, 5


def latex_symbol(name: str) -> str:
    r"""A name as LaTeX: Greek letters by name, subscripts after `_` or of trailing digits, star, prime, hat.

    a1 becomes a_{1}, A_start A_{\mathrm{start}}, beta_N \beta_{N}, N_star N^{*}, tokens \mathrm{tokens}.
    """
    head, *below = [part for part in name.split("_") if part] or [name]
    stem = head.rstrip("0123456789")
    if stem and stem != head:
        below.insert(0, head[len(stem) :])
        head = stem
    mark = next((part for part in below if part in ("star", "prime", "hat")), "")
    below = [part for part in below if part != mark]
    out = _word(head)
    if mark == "hat":
        out = rf"\hat{{{out}}}"
    if below:
        out += f"_{{{','.join([_word(part) for part in below])}}}"
    return out + {"star": "^{*}", "prime": "'"}.get(mark, "")


def _word(part: str) -> str:
    if part in _GREEK:
        return "\\" + part
    return part if len(part) == 1 or part.isdigit() else rf"\mathrm{{{part}}}".replace("_", r"\_")


def latex_of(node: Node) -> str:
    """The tree as LaTeX."""
    return _latex(node)[0]


def _latex(node: Node) -> tuple[str, int]:
    """LaTeX, and how tightly its outermost operation binds."""
    if isinstance(node, Sym):
        return latex_symbol(node.name), _ATOM
    if isinstance(node, Num):
        return _number(node.value)
    if node.op in FUNCTIONS:
        return _function(node)
    if node.op == "neg":
        return "-" + _closed(node.args[0], _PRODUCT), _SIGN
    left, right = node.args
    if node.op in ("+", "-"):
        return _sum(node.op, left, right), _SUM
    if node.op == "*":
        return _product(left, right), _PRODUCT
    if node.op == "/":
        return rf"\frac{{{_latex(left)[0]}}}{{{_latex(right)[0]}}}", _POWER
    base, level = _latex(left)
    if level < _ATOM:
        base = _bracket(base)
    elif "^" in base or base.endswith("'"):
        base = f"{{{base}}}"
    return f"{base}^{{{_latex(right)[0]}}}", _POWER


def _number(value: float) -> tuple[str, int]:
    r"""6.02 \times 10^{23}, 10^{-5} or -3.5, and how tightly it binds."""
    mantissa, mark, exponent = number(value).partition("e")
    level = _SIGN if value < 0 else _ATOM
    if not mark:
        return mantissa, level
    power = f"10^{{{int(exponent)}}}"
    if mantissa in ("1", "-1"):
        return mantissa.rstrip("1") + power, min(level, _POWER)
    return rf"{mantissa} \times {power}", _PRODUCT


def _sum(op: str, left: Node, right: Node) -> str:
    second, level = _latex(right)
    bare = level > _SUM and not second.startswith("-")
    return f"{_closed(left, _SUM)} {op} {second if bare else _bracket(second)}"


def _product(left: Node, right: Node) -> str:
    first, second = _closed(left, _PRODUCT), _closed(right, _PRODUCT)
    if second.startswith("-"):
        second = _bracket(second)
    dot = second[0].isdigit() or _open_ended(left)
    return rf"{first} \cdot {second}" if dot else f"{first} {second}"


def _open_ended(node: Node) -> bool:
    """Whether the LaTeX ends in a function without brackets, which would seem to take in what follows."""
    if not isinstance(node, Call):
        return False
    if node.op == "*":
        return _open_ended(node.args[1])
    return node.op in _NAMES and len(node.args) == 1 and isinstance(node.args[0], Sym)


def _function(node: Call) -> tuple[str, int]:
    inner = [_latex(a)[0] for a in node.args]
    if node.op == "exp":
        return f"e^{{{inner[0]}}}", _POWER
    if node.op == "sqrt":
        return rf"\sqrt{{{inner[0]}}}", _POWER
    if node.op == "abs":
        return rf"\left|{inner[0]}\right|", _ATOM
    if len(inner) == 1 and isinstance(node.args[0], Sym):
        return f"{_NAMES[node.op]} {inner[0]}", _PRODUCT
    return _NAMES[node.op] + _bracket(", ".join(inner)), _POWER


def _closed(node: Node, least: int) -> str:
    text, level = _latex(node)
    return text if level >= least else _bracket(text)


def _bracket(text: str) -> str:
    return rf"\left({text}\right)"
