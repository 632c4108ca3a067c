"""Text to a law and back: the only module that reads formulas; nothing of a text is ever executed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from agentlab.errors import nearest
from agentlab.law_form import Form
from agentlab.law_key import forms_of, key_of, structure_of
from agentlab.law_latex import latex_of
from agentlab.law_linear import linear_of
from agentlab.law_parse import tree_of
from agentlab.law_program import Program, Step, check_constants, tape_of
from agentlab.law_python import python_of
from agentlab.law_rows import column_expression, rows_where
from agentlab.law_tree import (
    FUNCTIONS,
    MAX_NODES,
    OPS,
    Call,
    LawError,
    Node,
    Num,
    Sym,
    checked,
    clip,
    text_of,
    walk,
)
from agentlab.types import FloatArray, GroupParams, StrArray

__all__ = [
    "FUNCTIONS",
    "MAX_NODES",
    "OPS",
    "Call",
    "Law",
    "LawError",
    "Node",
    "Num",
    "Program",
    "Sym",
    "canonical_key",
    "column_expression",
    "from_tree",
    "parse",
    "rows_where",
]


@dataclass(frozen=True, eq=False)
class Law:
    """A formula over variables (columns) and parameters (every other name); made by `parse` or `from_tree`.

    `used` are the variables that occur and `params` the parameters, both in order of first appearance; `complexity`
    counts nodes. Two laws are equal when their trees and variables are; they are the same law when their keys are.
    """

    tree: Node
    variables: tuple[str, ...]
    used: tuple[str, ...]
    params: tuple[str, ...]
    complexity: int

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Law) and self.tree == other.tree and self.variables == other.variables

    def __hash__(self) -> int:
        return hash((self.tree, self.variables))

    def __str__(self) -> str:
        return self.text

    @property
    def n_params(self) -> int:
        """The number of parameters."""
        return len(self.params)

    @cached_property
    def text(self) -> str:
        """The formula; parsing it gives this law."""
        return text_of(self.tree)

    @cached_property
    def key(self) -> str:
        """The canonical key: equal for laws that are the same family of functions by the rules of `law_pure`."""
        return key_of(self._forms)

    @cached_property
    def structure(self) -> str:
        """The kinds of terms and the variables in them, without exponents or constants: a niche for diversity."""
        return structure_of(self._forms)

    @cached_property
    def _forms(self) -> list[Form]:
        return forms_of(self.tree, self.variables)

    @cached_property
    def linear(self) -> tuple[str, ...]:
        """A maximal set of parameters in which the law is jointly affine (for variable projection)."""
        return linear_of(self.tree, self.params)

    @cached_property
    def _tape(self) -> tuple[Step, ...]:
        return tape_of(self.tree)

    def compile(self, columns: Mapping[str, FloatArray]) -> Program:
        """The law bound to the columns, each (n,); what depends on columns only is computed here, once.

        Raises LawError where a column of the law is missing.
        """
        return Program(self._tape, columns, self.params)

    def evaluate(self, columns: Mapping[str, FloatArray], params: FloatArray) -> FloatArray:
        """Values (..., n) at parameters (..., P), in the order of `params`; nan or inf where undefined, no warnings."""
        return self.compile(columns)(params)

    def predict(self, columns: Mapping[str, FloatArray], group: StrArray, params: GroupParams) -> dict[str, FloatArray]:
        """Predictions (n,) by target for rows of several groups; nan for rows of a group without parameters."""
        targets = dict.fromkeys(t for of_group in params.values() for t in of_group)
        found = {t: np.full(len(group), np.nan) for t in targets}
        for name in np.unique(group):
            mine = group == name
            here = {k: v[mine] for k, v in columns.items()}
            for target, values in params.get(str(name), {}).items():
                found[target][mine] = self.evaluate(here, np.array([values[p] for p in self.params]))
        return found

    def value_and_jacobian(
        self, columns: Mapping[str, FloatArray], params: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        """Values (..., n) and exact derivatives (..., n, P) in the parameters; subgradients of min, max and abs."""
        value, jacobian = self.compile(columns).with_jacobian(params)
        return value, np.moveaxis(jacobian, -2, -1)

    def gradient(self, columns: Mapping[str, FloatArray], params: FloatArray, variable: str) -> FloatArray:
        """The slope in a variable at each row, (..., n), at parameters (..., P); zero where it does not occur."""
        if variable not in self.variables:
            raise LawError(f"{clip(variable)} is not a variable of the law: {nearest(variable, self.variables)}")
        return Program(self._tape, columns, self.params, variable).with_jacobian(params)[1][..., 0, :]

    def latex(self) -> str:
        """The formula as LaTeX, without dollar signs."""
        return latex_of(self.tree)

    def to_python(
        self, params: Mapping[str, Mapping[str, Mapping[str, float]]] | None = None, name: str = "law"
    ) -> str:
        """Source of a module with the function `name(columns, params)`, importing NumPy only.

        With `params` (group -> target -> name -> value) the module also holds these as PARAMS, and the function
        `predict(columns, group, target)`. LawError where `name` cannot name a function.
        """
        return python_of(self.tree, self.used, self.params, self.text, params, name)

    def substitute(self, values: Mapping[str, float]) -> Law:
        """The law with parameters fixed at numbers; LawError for an unknown name or where a constant is not finite."""
        for known, value in values.items():
            if known not in self.params:
                raise LawError(f"{clip(known)} is not a parameter of the law: {nearest(known, self.params)}")
            if not math.isfinite(value):
                raise LawError(f"parameter {known} cannot be fixed at {value}; give a finite number")
        return from_tree(_replaced(self.tree, values), self.variables)


def parse(text: str, variables: Sequence[str], *, max_params: int | None = None) -> Law:
    """The law that `text` writes; names in `variables` are variables, every other name is a parameter.

    Raises LawError (one line) for text that is not a formula or is absurdly large, and for more parameters than
    `max_params`.
    """
    law = from_tree(tree_of(text, variables), variables)
    if max_params is not None and law.n_params > max_params:
        names = ", ".join(law.params)
        raise LawError(f"the law has {law.n_params} parameters ({names[:80]}); at most {max_params} are allowed")
    return law


def from_tree(node: Node, variables: Sequence[str]) -> Law:
    """The law of a tree, under the same limits as `parse`. Raises LawError."""
    names: dict[str, None] = {}
    count = 0
    constants = False
    node = checked(node)
    for item in walk(node):
        count += 1
        if isinstance(item, Sym):
            names[item.name] = None
        elif isinstance(item, Call) and not constants:
            constants = all(isinstance(a, Num) for a in item.args)
    if constants:
        check_constants(node)
    if count > MAX_NODES:
        raise LawError(f"the formula has {count} nodes; at most {MAX_NODES} are allowed")
    used = tuple(n for n in names if n in variables)
    params = tuple(n for n in names if n not in variables)
    return Law(node, tuple(variables), used, params, count)


def canonical_key(law: Law) -> str:
    """`law.key`."""
    return law.key


def _replaced(node: Node, values: Mapping[str, float]) -> Node:
    if isinstance(node, Sym):
        return Num(float(values[node.name])) if node.name in values else node
    if isinstance(node, Call):
        return Call(node.op, tuple(_replaced(a, values) for a in node.args))
    return node
