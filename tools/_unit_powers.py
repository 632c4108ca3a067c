"""Powers of units: numbers and formulas of parameters, told apart by their values at drawn parameters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from agentlab.law import Call, LawError, Node, Num, Sym, from_tree, parse


@dataclass(frozen=True)
class Power:
    """scale * above / below, and its value at the drawn parameters, by which equal ones are known."""

    value: Fraction
    scale: Fraction
    above: tuple[Node, ...] = ()
    below: tuple[Node, ...] = ()

    def plus(self, other: Power) -> Power:
        """The sum."""
        if not self.value or not other.value:
            return other if not self.value else self
        value = self.value + other.value
        if Counter(self.above) == Counter(other.above) and Counter(self.below) == Counter(other.below):
            return Power(value, self.scale + other.scale, self.above, self.below)
        if other.scale < 0:
            return Power(value, Fraction(1), (Call("-", (self.node, other.times(MINUS).node)),))
        return Power(value, Fraction(1), (Call("+", (self.node, other.node)),))

    def times(self, other: Power) -> Power:
        """The product; what stands above and below is cancelled."""
        above, below = Counter([*self.above, *other.above]), Counter([*self.below, *other.below])
        return Power(
            self.value * other.value,
            self.scale * other.scale,
            tuple((above - below).elements()),
            tuple((below - above).elements()),
        )

    def over(self, other: Power) -> Power:
        """The quotient; the other is not 0."""
        return self.times(Power(1 / other.value, 1 / other.scale, other.below, other.above))

    @property
    def node(self) -> Node:
        """The power as a formula."""
        size = abs(self.scale)
        above = [*([Num(float(size.numerator))] if size.numerator != 1 else []), *self.above] or [Num(1.0)]
        below = [*([Num(float(size.denominator))] if size.denominator != 1 else []), *self.below]
        if self.scale < 0:
            first = above[0]
            above[0] = Num(-first.value) if isinstance(first, Num) else Call("neg", (first,))
        out = _folded(above)
        return Call("/", (out, _folded(below))) if below else out


def _folded(nodes: Sequence[Node]) -> Node:
    out = nodes[0]
    for node in nodes[1:]:
        out = Call("*", (out, node))
    return out


def number(value: Fraction | int) -> Power:
    """A power that is a number."""
    return Power(Fraction(value), Fraction(value))


ONE, MINUS, HALF = number(1), number(-1), number(Fraction(1, 2))


Dimension = Mapping[str, Power]
"""Powers by base unit, or by the mark of an unknown unit; those of 0 are left out."""

NONE: Dimension = {}


def product(left: Dimension, right: Dimension) -> Dimension:
    """The dimension of a product."""
    out = dict(left)
    for name, power in right.items():
        out[name] = out[name].plus(power) if name in out else power
    return {name: power for name, power in out.items() if power.value}


def raised(dimension: Dimension, power: Power) -> Dimension:
    """The dimension of a power."""
    return {n: p for n, one in dimension.items() if (p := one.times(power)).value}


def read_unit(text: str) -> Dimension:
    """A unit such as "1", "FLOPs", "tokens/parameter" or "m**2". Raises LawError."""
    try:
        return _unit(parse(text.strip() or "1", ()).tree)
    except LawError as error:
        raise LawError(f"unit {text!r}: {error}; write 1, FLOPs, nats/byte or m**2") from error


def _unit(node: Node) -> Dimension:
    match node:
        case Num(1.0):
            return NONE
        case Sym(name):
            return {name: ONE}
        case Call("*", (left, right)):
            return product(_unit(left), _unit(right))
        case Call("/", (left, right)):
            return product(_unit(left), raised(_unit(right), MINUS))
        case Call("**", (base, Num(value))):
            return raised(_unit(base), number(Fraction(value).limit_denominator(1000)))
    raise LawError("a unit is made of names, *, / and powers")


def unit_text(dimension: Dimension) -> str:
    """The unit as a formula of base units, such as "nats*tokens**a"."""
    above = [_factor(n, p) for n, p in sorted(dimension.items()) if p.scale > 0]
    below = [_factor(n, p.times(MINUS)) for n, p in sorted(dimension.items()) if p.scale <= 0]
    out: Node = _folded(above) if above else Num(1.0)
    for node in below:
        out = Call("/", (out, node))
    return from_tree(out, ()).text


def _factor(name: str, power: Power) -> Node:
    node = power.node
    return Sym(name) if node == Num(1.0) else Call("**", (Sym(name), node))
