"""Numbers out of a law: a tape of NumPy operations over slots, with exact derivatives by reverse accumulation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from agentlab.errors import nearest
from agentlab.law_ops import Scratch, Value, backward, forward
from agentlab.law_tree import LawError, Node, Num, Sym, clip, text_of
from agentlab.types import FloatArray

KEPT_SHAPES = 4
"""For how many shapes of parameters a program keeps its working arrays."""


@dataclass(frozen=True, slots=True)
class Step:
    """One slot of the tape: an operation on earlier slots, or a leaf ("num" with its value, "sym" with its name)."""

    op: str
    args: tuple[int, ...]
    value: float = 0.0
    name: str = ""


@dataclass(frozen=True, slots=True)
class _Live:
    """A step that depends on what is free, and therefore runs at every call."""

    slot: int
    op: str
    args: tuple[int, ...]
    needed: tuple[bool, ...]


def tape_of(node: Node) -> tuple[Step, ...]:
    """The tree as steps in order of evaluation, equal subtrees computed once; the last step is the law."""
    steps: dict[Step, int] = {}

    def slot(item: Node) -> int:
        if isinstance(item, Num):
            step = Step("num", (), value=item.value)
        elif isinstance(item, Sym):
            step = Step("sym", (), name=item.name)
        else:
            step = Step(item.op, tuple([slot(a) for a in item.args]))
        return steps.setdefault(step, len(steps))

    slot(node)
    return tuple(steps)


def check_constants(node: Node) -> float | None:
    """The value of a tree without names, else None; LawError where a constant part of the tree is not finite."""
    if isinstance(node, Num):
        return node.value
    if isinstance(node, Sym):
        return None
    values = [check_constants(a) for a in node.args]
    known = [np.asarray(v) for v in values if v is not None]
    if len(known) < len(values):
        return None
    with np.errstate(all="ignore"):
        value = float(forward(node.op, known, Scratch()))
    if not np.isfinite(value):
        raise LawError(f"the constant {clip(text_of(node))} is not a finite number; write its value, or a parameter")
    return value


class Program:
    """A law bound to n rows: what depends on columns only (log N, ...) is computed once.

    `program(params)` is the law's value, (..., P) -> (..., n); `with_jacobian` adds its derivatives. Bad numbers come
    out as nan or inf, never as an exception or a warning. With `variable`, the derivatives are taken in that column.
    A program reuses its working arrays, so two threads need two programs; what it returns is the caller's.
    """

    def __init__(
        self,
        tape: Sequence[Step],
        columns: Mapping[str, FloatArray],
        params: Sequence[str],
        variable: str | None = None,
    ) -> None:
        self.params = tuple(params)
        self.n = len(next(iter(columns.values()))) if columns else 1
        self._rows = len(self.params) if variable is None else 1
        self._values: list[Value | None] = []
        self._leaves: list[tuple[int, int]] = []
        self._wrt: list[tuple[int, int]] = []
        self._live: list[_Live] = []
        self._scratch: dict[tuple[int, ...], Scratch] = {}
        with np.errstate(all="ignore"):
            self._root = self._bind(tape, columns, variable)

    def __call__(self, params: FloatArray) -> FloatArray:
        """The law's value at each row: (..., P) -> (..., n)."""
        params = self._checked(params)
        with np.errstate(all="ignore"):
            values = self._forward(params, self._scratch_for(params.shape))
        return self._full(values[self._root], params)

    def with_jacobian(self, params: FloatArray, spare: int = 0) -> tuple[FloatArray, FloatArray]:
        """The value (..., n) and its derivatives (..., P, n) in the parameters; with `variable`, (..., 1, n) in it.

        `spare` rows of zeros follow the derivatives, for what the caller wants to stand beside them.
        """
        params = self._checked(params)
        scratch = self._scratch_for(params.shape)
        with np.errstate(all="ignore"):
            values = self._forward(params, scratch)
            adjoint = self._backward(values, scratch)
        jacobian = np.zeros((*params.shape[:-1], self._rows + spare, self.n))
        for slot, i in self._wrt:
            found = adjoint[slot]
            if found is not None:
                jacobian[..., i, :] = found
        return self._full(values[self._root], params), jacobian

    def _bind(self, tape: Sequence[Step], columns: Mapping[str, FloatArray], variable: str | None) -> int:
        """Fills the slots that are fixed and lists the steps that are not; returns the slot of the law."""
        position = {name: i for i, name in enumerate(self.params)}
        values = self._values
        where: list[int] = []
        free: set[int] = set()
        for step in tape:
            slot = len(values)
            if step.op == "num":
                values.append(np.asarray(step.value))
            elif step.op == "sym" and step.name in position:
                values.append(None)
                free.add(slot)
                self._leaves.append((slot, position[step.name]))
                if variable is None:
                    self._wrt.append((slot, position[step.name]))
            elif step.op == "sym":
                values.append(_column(columns, step.name))
                if step.name == variable:
                    free.add(slot)
                    self._wrt.append((slot, 0))
            else:
                slot = self._operation(step.op, tuple([where[a] for a in step.args]), free)
            where.append(slot)
        return where[-1]

    def _operation(self, op: str, args: tuple[int, ...], free: set[int]) -> int:
        """Adds one operation, computed now if its arguments are fixed; returns its slot."""
        values = self._values
        if free.isdisjoint(args):
            values.append(forward(op, [v for a in args if (v := values[a]) is not None], Scratch()))
            return len(values) - 1
        if op == "**":
            op, args = self._cheaper_power(args, free)
        slot = len(values)
        values.append(None)
        free.add(slot)
        self._live.append(_Live(slot, op, args, tuple([a in free for a in args])))
        return slot

    def _cheaper_power(self, args: tuple[int, ...], free: set[int]) -> tuple[str, tuple[int, ...]]:
        """A power as the operation that computes it fastest with the same result."""
        base, exponent = args
        fixed = self._values[exponent]
        if exponent not in free and fixed is not None and np.ndim(fixed) == 0:
            op = {2.0: "square", -1.0: "reciprocal", 0.5: "sqrt"}.get(float(fixed))
            return (op, (base,)) if op else ("**", args)
        column = self._values[base]
        if base not in free and column is not None and np.all(column > 0.0):
            self._values.append(np.log(column))
            return "expmul", (len(self._values) - 1, exponent)
        return "**", args

    def _checked(self, params: FloatArray) -> FloatArray:
        params = np.asarray(params, dtype=np.float64)
        if params.ndim == 0 or params.shape[-1] != len(self.params):
            wanted = f"{len(self.params)} ({', '.join(self.params)[:80]})"
            raise LawError(f"parameters of shape {params.shape}: the last axis must hold {wanted}")
        return params

    def _scratch_for(self, shape: tuple[int, ...]) -> Scratch:
        if shape not in self._scratch:
            if len(self._scratch) == KEPT_SHAPES:
                del self._scratch[next(iter(self._scratch))]
            self._scratch[shape] = Scratch()
        return self._scratch[shape]

    def _forward(self, params: FloatArray, scratch: Scratch) -> list[Value]:
        values: list[Value] = self._values.copy()  # type: ignore[assignment]
        scratch.rewind()
        for slot, i in self._leaves:
            values[slot] = params[..., i, None]
        for step in self._live:
            values[step.slot] = forward(step.op, [values[a] for a in step.args], scratch)
        return values

    def _backward(self, values: list[Value], scratch: Scratch) -> list[Value | None]:
        adjoint: list[Value | None] = [None] * len(values)
        adjoint[self._root] = np.ones(())
        for step in reversed(self._live):
            g = adjoint[step.slot]
            if g is None:
                continue
            parts = backward(step.op, g, values[step.slot], [values[a] for a in step.args], step.needed, scratch)
            for slot, needed, part in zip(step.args, step.needed, parts, strict=True):
                if needed:
                    before = adjoint[slot]
                    adjoint[slot] = part if before is None else scratch.run(np.add, before, part)
        return adjoint

    def _full(self, value: Value, params: FloatArray) -> FloatArray:
        return np.array(np.broadcast_to(value, (*params.shape[:-1], self.n)))


def _column(columns: Mapping[str, FloatArray], name: str) -> FloatArray:
    if name not in columns:
        raise LawError(f"no column {name}: {nearest(name, columns)}")
    return np.asarray(columns[name], dtype=np.float64)
