"""The layers of the design: every module imports only from layers to its left, and hold-outs have one reader."""

from __future__ import annotations

import ast
import graphlib
from collections.abc import Iterator
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[1]

FITTING = ("fitting", "search", "objective", "descent", "varpro", "starts", "peel", "standard")
LAYERS: tuple[tuple[str, ...], ...] = (
    ("errors", "files", "types"),
    (
        *("catalog", "metrics", "law", "vote", "ledger", "journal", "trace", "words", "task_file", "csv", "variables"),
        "hub",
        "listening",
        "semconv",
        "engine_address",
    ),
    (
        *FITTING,
        "selection",
        "allocation",
        "goodput",
        "belief",
        "space",
        "audit",
        "baselines",
        "library",
        "models",
        "budget",
        "checkpoints",
        "archive",
        "program",
        "detach",
        "tool",
        "toolbox",
        "engine",
        "decisions",
        "steps",
        "planted",
        "hanoi",
        "topology",
        "table",
        "run_rows",
    ),
    ("proposers",),
    ("discover",),
    (
        *("experiments", "leaderboard", "report", "otlp", "replay", "web", "testing", "runs", "display", "doctor"),
        *("predict", "trackers", "estimator", "migrations"),
    ),
    ("cli",),
)
"""A file that was split off one of these, such as law_parse, belongs where its name begins."""

PLUGINS_MAY_IMPORT = {
    *LAYERS[0],
    *LAYERS[1],
    *FITTING,
    "selection",
    "allocation",
    "audit",
    "detach",
    "steps",
    "table",
    "run_rows",
    "program",
}

HEAVY = {"torch", "ray", "docker", "matplotlib", "langgraph", "mcp", "openai", "scipy", "numpy", "pydantic"}


def module_files() -> dict[str, Path]:
    root = CHECKOUT / "agentlab"
    files = {}
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        name = ".".join(parts).removesuffix(".__init__")
        if name != "__init__":
            files[name] = path
    return files


def imports(path: Path, *, top_only: bool = False) -> Iterator[str]:
    """The absolute names that a file imports; with `top_only` those that run when it is imported."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = list(top_level(tree.body)) if top_only else list(ast.walk(tree))
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: a relative import; write it from agentlab"
            assert node.module is not None
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def top_level(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Statements that run on import: all but function bodies and `if TYPE_CHECKING`."""
    for node in body:
        yield node
        if isinstance(node, ast.If) and "TYPE_CHECKING" not in ast.unparse(node.test):
            yield from top_level([*node.body, *node.orelse])
        elif isinstance(node, ast.Try):
            yield from top_level([*node.body, *node.orelse, *node.finalbody])
        elif isinstance(node, ast.ClassDef | ast.With):
            yield from top_level(node.body)


def own(name: str, known: set[str]) -> str | None:
    """The module of agentlab that an imported name lies in: "agentlab.law.parse" -> "law"."""
    parts = name.split(".")
    if parts[0] != "agentlab":
        return None
    found = [".".join(parts[1:end]) for end in range(len(parts), 1, -1) if ".".join(parts[1:end]) in known]
    return found[0] if found else None


def layer(module: str) -> int:
    """The layer of a module, by the longest listed name that it is or begins with."""
    head = module.split(".", 1)[0]
    begins = [
        (number, name) for number, names in enumerate(LAYERS) for name in names if f"{head}_".startswith(f"{name}_")
    ]
    fits = [(len(name), number) for number, name in begins]
    assert fits, f"agentlab/{module}.py is in no layer: name it in LAYERS of {Path(__file__).name}"
    return max(fits)[1]


FILES = module_files()


@pytest.mark.parametrize("module", sorted(FILES))
def test_a_module_imports_only_from_its_own_layer_or_one_to_the_left(module: str) -> None:
    for name in imports(FILES[module]):
        other = own(name, set(FILES))
        if other is not None:
            assert layer(other) <= layer(module), f"{module} imports {other}, which lies to its right"


def test_no_import_goes_in_a_circle() -> None:
    graph = {m: {o for n in imports(p) if (o := own(n, set(FILES))) and o != m} for m, p in FILES.items()}
    graphlib.TopologicalSorter(graph).prepare()


@pytest.mark.parametrize("path", sorted([*CHECKOUT.glob("tools/*.py"), *CHECKOUT.glob("envs/*.py")]), ids=str)
def test_tools_and_sandboxes_do_not_reach_into_the_loop(path: Path) -> None:
    for name in imports(path):
        other = own(name, set(FILES))
        head = (other or "types").split(".")[0]
        assert head in PLUGINS_MAY_IMPORT or head.split("_")[0] in PLUGINS_MAY_IMPORT, f"{path.name} imports {other}"


@pytest.mark.parametrize("path", sorted(CHECKOUT.glob("envs/images/*/*.py")), ids=lambda p: f"{p.parent.name}/{p.name}")
def test_a_sandboxed_program_imports_nothing_of_agentlab(path: Path) -> None:
    assert not [name for name in imports(path) if name.split(".")[0] == "agentlab"]


def test_nothing_heavy_is_imported_where_the_command_line_starts() -> None:
    started = [m for m in FILES if m.split("_")[0] == "cli" or m == "__main__"]
    found = {n.split(".")[0] for m in started for n in imports(FILES[m], top_only=True)}
    assert not found & HEAVY


def test_the_records_need_numpy_and_nothing_else() -> None:
    assert {n.split(".")[0] for n in imports(FILES["types"], top_only=True)} & HEAVY <= {"numpy"}


@pytest.mark.parametrize("folder", ["agentlab", "tools", "envs", "tests", "bench"])
def test_our_folders_are_imported_under_agentlab_only(folder: str) -> None:
    for path in (CHECKOUT / folder).rglob("*.py"):
        assert not {n.split(".")[0] for n in imports(path)} & {"tools", "envs", "tasks"}, (
            f"{path}: write agentlab.tools ..."
        )


def test_only_the_leaderboard_reads_sealed_rows() -> None:
    """run_rows writes sealed rows; leaderboard, and no other module, tool or sandbox, calls what reads them."""
    for path in [*FILES.values(), *CHECKOUT.glob("tools/*.py"), *CHECKOUT.glob("envs/**/*.py")]:
        if path.name in {"run_rows.py", "leaderboard.py"}:
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        names = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)}
        names |= {n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute)}
        texts = {n.value for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str)}
        assert not {n.split(".")[-1] for n in imports(path)} & {"read_sealed", "SEALED"}, path
        assert not names & {"read_sealed", "SEALED"}, path
        assert "holdout.npz" not in texts, path


def test_the_layer_rule_can_fail(tmp_path: Path) -> None:
    bad = tmp_path / "law.py"
    bad.write_text("from agentlab.discover import run\nimport agentlab.cli\n")
    others = [own(n, set(FILES)) for n in imports(bad)]
    assert others == ["discover", "cli"]
    assert all(layer(o) > layer("law") for o in others if o)
    assert own("agentlab.types.Task", set(FILES)) == "types"
    assert own("numpy.linalg", set(FILES)) is None
