"""Laws are read from text, refused in one line, printed back, differentiated exactly, and exported."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Callable, Mapping

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from agentlab.law import Call, Law, LawError, Node, Num, Sym, from_tree, parse
from agentlab.types import BoolArray, FloatArray

ComplexArray = NDArray[np.complex128]

VARIABLES = ("N", "D", "x")
LAWS = (
    "E + A/N**a + B/D**b",
    "E + (A/(N*(k*log(x) + 1)))**a",
    "A*D**-a + B*N**-b + C + d*(x - F*N**g)**2",
    "exp(a3*N**g + b3) + exp(a2*N**b + b2)*D**-exp(a1*N**a + b1)",
    "R0 + (A - R0)/(1 + (C/N)**B)",
    "a + b*log10(N) + c*log10(N)**2 + d*log2(D)*sqrt(x)",
    "(x + A_start)**(alpha + gamma*log2(D)**2 + beta*log2(D))",
    "A*tanh(k*x) + B*sigmoid(m - N) + abs(x - c)",
    "min(A*N, B*D, C) - max(x, lambda)",
    "E",
    "N**-0.5",
)


def columns(n: int = 7, seed: int = 0) -> dict[str, FloatArray]:
    rng = np.random.default_rng(seed)
    return {name: rng.uniform(0.4, 2.5, n) for name in VARIABLES}


def trees(depth: int = 4) -> st.SearchStrategy[Node]:
    """Random formulas over the variables and four parameters."""
    names = st.sampled_from([*VARIABLES, "a", "b", "c", "lambda"])
    leaves: st.SearchStrategy[Node] = st.one_of(
        names.map(Sym), st.sampled_from([1.0, 2.0, 0.5, -1.5, 3e-5, 1e20]).map(Num)
    )
    for _ in range(depth):
        below = leaves
        leaves = st.one_of(
            names.map(Sym),
            st.builds(lambda op, u, v: Call(op, (u, v)), st.sampled_from(["+", "-", "*", "/", "**"]), below, below),
            st.builds(lambda op, u: Call(op, (u,)), st.sampled_from(["neg", "exp", "log", "sqrt", "tanh"]), below),
            st.builds(lambda op, u: Call(op, (u,)), st.sampled_from(["abs", "log2", "log10", "sigmoid"]), below),
            st.builds(lambda op, u, v: Call(op, (u, v)), st.sampled_from(["min", "max"]), below, below),
        )
    return leaves


def law_of(node: Node) -> Law:
    """The law of a random tree, unless its constants have no finite value."""
    try:
        return from_tree(node, VARIABLES)
    except LawError:
        assume(condition=False)
        raise


# -- text -----------------------------------------------------------------------------------------------------------


def test_every_name_that_is_not_a_variable_is_a_parameter_in_order_of_appearance() -> None:
    law = parse("E + I*N**-beta + S*lambda*D**in", ["D", "N"])
    assert law.params == ("E", "I", "beta", "S", "lambda", "in")
    assert law.used == ("N", "D")
    assert law.variables == ("D", "N")
    assert law.n_params == 6
    assert law.complexity == 16


@given(trees())
@settings(max_examples=200, deadline=None)
def test_a_law_printed_and_read_back_is_the_same_law(node: Node) -> None:
    law = law_of(node)
    assert parse(law.text, VARIABLES) == law
    assert str(law) == law.text


def test_text_is_printed_as_people_write_it() -> None:
    for text in LAWS:
        assert parse(text, VARIABLES).text == text
    assert parse(" E+A * N**(-a)-( b-c ) ", VARIABLES).text == "E + A*N**-a - (b - c)"
    assert parse("-2**x + 1.0*(-3)**x + 1E5/.5", VARIABLES).text == "-2**x + 1*(-3)**x + 100000/0.5"


HOSTILE = {
    "attribute": "x.__class__",
    "dunder": "__import__('os')",
    "bare dunder": "__builtins__ + x",
    "call of another name": "system(x)",
    "call of a call": "exp(x)(x)",
    "subscript": "x[0]",
    "lambda": "lambda x: x",
    "f-string": "f'{x}'",
    "string": "'x'",
    "comprehension": "[x for x in y]",
    "walrus": "(x := 1)",
    "starred": "exp(*x)",
    "keyword argument": "exp(x=1)",
    "comparison": "x < 1",
    "statement": "import os",
    "two statements": "x; y",
    "a million characters": "x+" * 500_000 + "x",
    "a million brackets": "(" * 1_000_000,
    "deep brackets": "(" * 400 + "x" + ")" * 400,
    "deep signs": "-" * 3000 + "x",
    "deep powers": "x**" * 900 + "x",
    "deep sums": "x+" * 1900 + "x",
    "deep calls": "exp(" * 500 + "x" + ")" * 500,
    "many nodes": "+".join(f"({'+'.join(['x'] * 20)})" for _ in range(20)),
    "huge power": "9**9**9",
    "huge power of a power": "x + 9.9**9e9**9",
    "digits": "1" * 5000,
    "fewer digits": "1" * 3900,
    "exponent": "1e999",
    "division by zero": "x/(1 - 1) + 1/0",
    "NUL": "x\0",
    "newline and quote": 'x\n"',
    "backslash": "x\\\ny",
    "Greek letter": "α*x",
    "Cyrillic look-alike": "х + 1",
    "full-width digit": "x + \uff11",
    "zero-width space": "x\u200b+1",
    "complex": "1j*x",
    "hexadecimal": "0x10",
    "octal": "007",
    "underscored number": "1_000",
    "empty": "",
    "blank": " \n ",
    "comment": "# x",
    "long name": "x" * 500,
    "only an operator": "+",
    "a function alone": "exp + x",
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_text_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(LawError) as caught:
        parse(text, ["x", "y"])
    message = str(caught.value)
    assert message.isprintable()
    assert 10 < len(message) < 200
    assert caught.value.exit_code == 2


@given(st.text(max_size=60) | st.text("xN01.eE+-*/()[]{},'\"\\=<>:;^~ \t\n_lambdaexp", max_size=200))
@settings(max_examples=400, deadline=None)
def test_any_text_is_a_law_or_one_line_of_error(text: str) -> None:
    try:
        law = parse(text, ["x", "N"])
    except LawError as error:
        assert str(error).isprintable()  # noqa: PT017 - most texts are refused, some are not
        assert len(str(error)) < 200  # noqa: PT017
    else:
        assert law.key
        assert law.latex()


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ("x^2", "write ** for a power"),
        ("L = E + x", "right-hand side"),
        ("2x", "write * between"),
        ("x(1 + a)", "write x*(...) for a product"),
        ("sqr(x)", "did you mean 'sqrt'?"),
        ("exp(1, 2)", "exp takes 1 argument(s), got 2"),
        ("min(x)", "min takes 2 to 8 argument(s), got 1"),
        ("a*(x + 1", "unbalanced bracket"),
        ("a*x)", "unbalanced bracket"),
        ("a1 + [x]", "such as a1"),
        ("1/0 + x", "'1/0' is not a finite number"),
    ],
)
def test_an_error_says_what_to_write_instead(text: str, advice: str) -> None:
    with pytest.raises(LawError) as caught:
        parse(text, ["x"])
    assert advice in str(caught.value)


def test_more_parameters_than_allowed_are_named_and_refused() -> None:
    assert parse("a + b*x", ["x"], max_params=2).n_params == 2
    with pytest.raises(LawError, match=r"3 parameters \(a, b, c\); at most 2"):
        parse("a + b*x**c", ["x"], max_params=2)


@pytest.mark.parametrize(
    "node",
    [
        Sym("x)\nimport os"),
        Sym("__class__"),
        Sym(""),
        Num(float("nan")),
        Num(float("inf")),
        Call("system", (Sym("x"),)),
        Call("+", (Sym("x"),)),
        Call("exp", ()),
        Call("/", (Num(1.0), Num(0.0))),
    ],
)
def test_a_tree_is_held_to_the_limits_of_text(node: Node) -> None:
    with pytest.raises(LawError):
        from_tree(Call("+", (node, Sym("a"))), VARIABLES)


def test_a_tree_nested_a_hundred_thousand_deep_is_refused() -> None:
    node: Node = Sym("x")
    for _ in range(100_000):
        node = Call("neg", (node,))
    with pytest.raises(LawError, match="deep"):
        from_tree(node, VARIABLES)


def test_substituting_fixes_parameters_at_numbers() -> None:
    law = parse("E + A/N**a", VARIABLES).substitute({"a": 0.5, "E": -1.0})
    assert law.text == "-1 + A/N**0.5"
    assert law.params == ("A",)
    with pytest.raises(LawError, match="did you mean 'A'"):
        law.substitute({"AA": 1.0})
    with pytest.raises(LawError, match="finite"):
        law.substitute({"A": float("nan")})


# -- numbers --------------------------------------------------------------------------------------------------------


def _chosen(first: BoolArray, x: ComplexArray, y: ComplexArray) -> ComplexArray:
    return np.where(first, x, y)


_COMPLEX: dict[str, Callable[..., ComplexArray]] = {
    "+": np.add,
    "-": np.subtract,
    "*": np.multiply,
    "/": np.divide,
    "**": lambda x, a: x * x if np.all(a == 2.0) else np.exp(a * np.log(x)),
    "neg": np.negative,
    "exp": np.exp,
    "log": np.log,
    "log2": lambda x: np.log(x) / np.log(2),
    "log10": lambda x: np.log(x) / np.log(10),
    "sqrt": np.sqrt,
    "tanh": np.tanh,
    "sigmoid": lambda x: 1.0 / (1.0 + np.exp(-x)),
    "abs": lambda x: np.where(x.real < 0, -x, x),
    "min": lambda x, y: _chosen(y.real < x.real, y, x),
    "max": lambda x, y: _chosen(y.real > x.real, y, x),
}


def complex_value(node: Node, names: Mapping[str, ComplexArray]) -> ComplexArray:
    """The law over complex numbers, one definition after the other: the reference for values and, by steps, slopes."""
    if isinstance(node, Num):
        return np.asarray(node.value + 0j)
    if isinstance(node, Sym):
        return names[node.name]
    return np.asarray(_COMPLEX[node.op](*[complex_value(a, names) for a in node.args]))


@given(trees(), st.integers(0, 99))
@settings(max_examples=300, deadline=None)
def test_values_and_slopes_agree_with_complex_steps(node: Node, seed: int) -> None:
    law = law_of(node)
    data = columns(5, seed)
    params = np.random.default_rng(seed).uniform(0.3, 1.8, law.n_params)
    names = {**data, **dict(zip(law.params, params, strict=True))}
    start = {name: np.asarray(v, dtype=complex) for name, v in names.items()}
    step = 1e-40
    value, jacobian = law.value_and_jacobian(data, params)
    with np.errstate(all="ignore"):
        expected = complex_value(law.tree, start) * np.ones(5)
        clean = (np.abs(expected.imag) == 0) & np.isfinite(expected) & (np.abs(expected) < 1e8)
        clean &= np.isfinite(value)
        np.testing.assert_allclose(value[clean], expected.real[clean], rtol=1e-9, atol=1e-9)
        for name in (*law.params, "x"):
            moved = complex_value(law.tree, {**start, name: start[name] + 1j * step}) * np.ones(5)
            slope = moved.imag / step
            found = law.gradient(data, params, "x") if name == "x" else jacobian[:, law.params.index(name)]
            good = clean & np.isfinite(slope) & (np.abs(slope) < 1e8) & np.isfinite(found)
            np.testing.assert_allclose(found[good], slope[good], rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("text", LAWS)
def test_slopes_agree_with_finite_differences(text: str) -> None:
    law = parse(text, VARIABLES)
    data = columns()
    params = np.random.default_rng(1).uniform(0.2, 0.7, law.n_params)
    value, jacobian = law.value_and_jacobian(data, params)
    assert value.shape == (7,)
    assert jacobian.shape == (7, law.n_params)
    for i in range(law.n_params):
        h = np.zeros(law.n_params)
        h[i] = 1e-6
        slope = (law.evaluate(data, params + h) - law.evaluate(data, params - h)) / 2e-6
        np.testing.assert_allclose(jacobian[:, i], slope, rtol=1e-6, atol=1e-7)
    for name in VARIABLES:
        up, down = ({**data, name: data[name] + h} for h in (1e-6, -1e-6))
        slope = (law.evaluate(up, params) - law.evaluate(down, params)) / 2e-6
        np.testing.assert_allclose(law.gradient(data, params, name), slope, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("text", LAWS)
def test_many_parameter_vectors_at_once_give_what_each_gives_alone(text: str) -> None:
    law = parse(text, VARIABLES)
    data = columns()
    params = np.random.default_rng(2).uniform(0.5, 1.5, (3, 4, law.n_params))
    program = law.compile(data)
    value, jacobian = program.with_jacobian(params)
    assert value.shape == (3, 4, 7)
    assert jacobian.shape == (3, 4, law.n_params, 7)
    np.testing.assert_array_equal(value, program(params))
    np.testing.assert_allclose(value[1, 2], program(params[1, 2]), rtol=1e-13)
    np.testing.assert_allclose(jacobian[1, 2], program.with_jacobian(params[1, 2])[1], rtol=1e-12)


def test_what_a_program_returns_is_not_overwritten_by_its_next_call() -> None:
    law = parse("E + A*N**-a", VARIABLES)
    program = law.compile(columns())
    first, slopes = program.with_jacobian(np.array([[1.0, 2.0, 0.3]]))
    kept, kept_slopes = first.copy(), slopes.copy()
    program.with_jacobian(np.array([[5.0, 6.0, 0.7]]))
    program(np.array([[5.0, 6.0, 0.7]]))
    np.testing.assert_array_equal(first, kept)
    np.testing.assert_array_equal(slopes, kept_slopes)


def test_bad_numbers_come_out_as_nan_or_inf_without_a_warning() -> None:
    data = {"x": np.array([-1.0, 0.0, 1e308]), "N": np.ones(3), "D": np.ones(3)}
    for text in (
        "log(x)",
        "a/x",
        "x**a",
        "exp(a*x)",
        "sqrt(x - a)",
        "x*x*a",
        "log2(x)/a",
        "sigmoid(x*a)",
        "(a - x)**b",
    ):
        law = parse(text, VARIABLES)
        value, jacobian = law.value_and_jacobian(data, np.full((2, law.n_params), 0.5))
        assert value.shape == (2, 3)
        assert jacobian.shape == (2, 3, law.n_params)
    np.testing.assert_array_equal(parse("x**a", VARIABLES).evaluate(data, np.array([2.0])), [1.0, 0.0, np.inf])
    np.testing.assert_array_equal(
        parse("sigmoid(x)", VARIABLES).evaluate({"x": np.array([-1e3, 1e3])}, np.empty(0)), [0, 1]
    )
    small = parse("sigmoid(x)", VARIABLES).evaluate({"x": np.array([-300.0])}, np.empty(0))
    np.testing.assert_allclose(small, np.exp(-300.0), rtol=1e-14)


def test_ties_of_min_and_max_give_a_subgradient() -> None:
    law = parse("min(a*x, b*x) + max(a, b)", VARIABLES)
    _, jacobian = law.value_and_jacobian({"x": np.ones(1)}, np.array([1.0, 1.0]))
    assert jacobian.sum() == 2.0
    assert parse("abs(a)*x", VARIABLES).value_and_jacobian({"x": np.ones(1)}, np.zeros(1))[1] == 0.0


def test_a_missing_column_and_a_wrong_number_of_parameters_are_named() -> None:
    law = parse("E + A*N**a", VARIABLES)
    with pytest.raises(LawError, match=r"no column N: did you mean 'n'\?"):
        law.evaluate({"n": np.ones(2)}, np.ones(3))
    with pytest.raises(LawError, match=r"must hold 3 \(E, A, a\)"):
        law.evaluate(columns(), np.ones(4))
    with pytest.raises(LawError, match="not a variable"):
        law.gradient(columns(), np.ones(3), "A")


def test_a_law_without_variables_or_parameters_still_has_a_value_a_row() -> None:
    assert parse("E", VARIABLES).evaluate(columns(3), np.array([[2.0], [3.0]])).tolist() == [[2.0] * 3, [3.0] * 3]
    value, jacobian = parse("2*x", VARIABLES).value_and_jacobian({"x": np.ones(2)}, np.empty(0))
    assert value.tolist() == [2.0, 2.0]
    assert jacobian.shape == (2, 0)


# -- linear parameters ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "linear"),
    [
        ("E + A/N**a + B/D**b", ("E", "A", "B")),
        ("A*(B + C*x)", ("B", "C")),
        ("E + A*(1 + B*x)", ("E", "A")),
        ("E + A*B*x", ("E", "A")),
        ("E - (A + B*x)/(1 + C*x)", ("E", "A", "B")),
        ("R0 + (A - R0)/(1 + (C/N)**B)", ("R0", "A")),
        ("A*x + A**2", ()),
        ("exp(A + b*x)", ()),
        ("-(a - b*x)*2", ("a", "b")),
        ("min(a, b*x) + c", ("c",)),
        ("x/A + B", ("B",)),
        ("a*a*x + b*a", ("b",)),
    ],
)
def test_linear_parameters(text: str, linear: tuple[str, ...]) -> None:
    assert parse(text, VARIABLES).linear == linear


@given(trees(), st.integers(0, 99))
@settings(max_examples=200, deadline=None)
def test_a_law_is_jointly_affine_in_its_linear_parameters(node: Node, seed: int) -> None:
    law = law_of(node)
    rng = np.random.default_rng(seed)
    start = rng.uniform(0.3, 1.8, law.n_params)
    move = np.array([rng.uniform(-1, 1) if p in law.linear else 0.0 for p in law.params])
    low, middle, high = (law.evaluate(columns(), start + t * move) for t in (-1.0, 0.0, 1.0))
    with np.errstate(all="ignore"):
        size = np.abs(low) + np.abs(high) + np.abs(middle)
        jacobian = law.value_and_jacobian(columns(), start)[1]
        size += np.abs(jacobian * move).sum(axis=-1)
    assume(np.all(np.isfinite(size)))
    assert np.all(np.abs(low + high - 2 * middle) <= 1e-9 * size + 1e-12)


# -- LaTeX and Python -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "latex"),
    [
        ("E + A/N**a", r"E + \frac{A}{N^{a}}"),
        ("beta*n_params**-alpha", r"\beta n_{\mathrm{params}}^{-\alpha}"),
        ("a1*A_start**2", r"a_{1} A_{\mathrm{start}}^{2}"),
        ("lambda_N*N_star**a", r"\lambda_{N} {N^{*}}^{a}"),
        ("(A/N)**a", r"\left(\frac{A}{N}\right)^{a}"),
        ("A*exp(-b*x)", r"A e^{-b x}"),
        ("log(N)*D", r"\ln N \cdot D"),
        ("a*log2(D)**2", r"a \left(\log_{2} D\right)^{2}"),
        ("log(1 + N)", r"\ln\left(1 + N\right)"),
        ("1.5e-5*x", r"1.5 \times 10^{-5} x"),
        ("x*2", r"x \cdot 2"),
        ("a - (b - c)", r"a - \left(b - c\right)"),
        ("a*(b + c)", r"a \left(b + c\right)"),
        ("sqrt(abs(x))", r"\sqrt{\left|x\right|}"),
        ("tokens/max(a, 2)", r"\frac{\mathrm{tokens}}{\max\left(a, 2\right)}"),
        ("-x**2", "-x^{2}"),
        ("(-x)**2", r"\left(-x\right)^{2}"),
    ],
)
def test_latex(text: str, latex: str) -> None:
    assert parse(text, VARIABLES).latex() == latex


@given(trees())
@settings(max_examples=100, deadline=None)
def test_latex_balances_its_brackets(node: Node) -> None:
    latex = law_of(node).latex()
    assert latex.count("{") == latex.count("}")
    assert latex.count(r"\left") == latex.count(r"\right")


def test_exported_python_imports_numpy_only_and_gives_the_values_of_the_law(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("export")
    names = ("N", "D", "x", "value", "np")
    checks = []
    for i, text in enumerate((*LAWS, "lambda*value + np_*np**params + rows", "sigmoid(a*x)*predict")):
        law = parse(text, names)
        fitted = dict(zip(law.params, np.random.default_rng(i).uniform(0.5, 1.5, law.n_params), strict=True))
        source = law.to_python({"all": {"loss": fitted}, 'g"1': {"l'x": {}}}, name=f"law{i}")
        imports = [node for node in ast.walk(ast.parse(source)) if isinstance(node, (ast.Import, ast.ImportFrom))]
        assert [ast.unparse(node) for node in imports] == ["import numpy as np"]
        (folder / f"law{i}.py").write_text(source)
        data = {name: np.array([0.5, 1.5, 2.5]) + k for k, name in enumerate(names)}
        value = law.evaluate(data, np.array(list(fitted.values())))
        checks.append(f"check(law{i}.predict(data), {value.tolist()})")
    script = [
        "import numpy as np",
        *[f"import law{i}" for i in range(len(checks))],
        f"data = {{name: np.array([0.5, 1.5, 2.5]) + k for k, name in enumerate({names})}}",
        "def check(a, b): np.testing.assert_allclose(a, b, rtol=1e-12)",
        *checks,
        "print(len(data))",
    ]
    (folder / "main.py").write_text("\n".join(script))
    done = subprocess.run([sys.executable, "main.py"], cwd=folder, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "5"), done.stderr


def test_exported_python_keeps_parameters_that_are_not_finite_and_refuses_a_bad_name() -> None:
    law = parse("a*x", VARIABLES)
    assert 'float("nan")' in law.to_python({"all": {"y": {"a": float("nan")}}})
    for name in ("class", "1law", "np", "law; import os"):
        with pytest.raises(LawError, match="cannot name"):
            law.to_python(name=name)
