"""The package as others get it: a wheel and an editable install, used from another folder."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

CHECKS = (
    "from agentlab.catalog import server_names, task_names; "
    "import agentlab.tasks, agentlab.tools, agentlab.envs, agentlab.proposers; "
    "import json; print(json.dumps([server_names(), task_names(), agentlab.__file__]))"
)


def run(command: list[str], cwd: Path) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def source(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what is tracked or would be: a build leaves its traces there and not in the checkout."""
    copy = tmp_path_factory.mktemp("source")
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    for name in run(listed, checkout).splitlines():
        if (checkout / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            (copy / name).write_bytes((checkout / name).read_bytes())
    return copy


@pytest.fixture(scope="module")
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built with the setuptools of the test environment: nothing is downloaded."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-build-isolation", "--no-deps", "--no-index"]
    run([*pip, "--disable-pip-version-check", "--wheel-dir", str(folder), str(source)], folder)
    return next(folder.glob("*.whl"))


def fresh_environment(folder: Path) -> Path:
    """A new environment that sees the packages of the test environment, but not its agentlab: Python's path."""
    venv.EnvBuilder(with_pip=False).create(folder)
    python = folder / "bin" / "python"
    place = Path(run([str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], folder).strip())
    (place / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python


def install(python: Path, *what: str) -> None:
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps", "--no-index"]
    run([*pip, "--ignore-installed", "--disable-pip-version-check", *what], python.parent)


def test_the_wheel_holds_every_file_that_the_program_reads(wheel: Path, source: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    wanted = {"agentlab": "agentlab", "tools": "agentlab/tools", "envs": "agentlab/envs", "tasks": "agentlab/tasks"}
    for folder, place in wanted.items():
        for path in sorted((source / folder).rglob("*")):
            if path.is_file() and path.suffix in {".py", ".toml", ".md", ".csv"}:
                assert f"{place}/{path.relative_to(source / folder)}" in names


PARTS = {
    "google.protobuf": "protobuf",
    "mlflow": "mlflow_skinny",
    "langgraph.checkpoint.postgres": "langgraph_checkpoint_postgres",
    "langgraph.checkpoint.sqlite": "langgraph_checkpoint_sqlite",
    "opentelemetry.exporter.otlp.proto.http": "opentelemetry_exporter_otlp_proto_http",
    "opentelemetry.proto": "opentelemetry_proto",
    "opentelemetry.sdk": "opentelemetry_sdk",
    "opentelemetry.trace": "opentelemetry_api",
}
"""The parts of a namespace by their beginnings."""


STARTED = {"ipykernel"}
"""What is started as a program of its own, and imported nowhere."""


def package(module: str) -> str:
    """The package that a module belongs to."""
    parts = (name for part, name in PARTS.items() if f"{module}.".startswith(f"{part}."))
    return next(parts, module.partition(".")[0])


def imported(*folders: Path) -> set[str]:
    """The packages that the Python files under the folders import, ours and the standard library's left out.

    A part of another package's namespace that is installed by itself counts as one of its own.
    """
    found: set[str] = set()
    for path in (p for folder in folders for p in folder.rglob("*.py") if "images" not in p.parts):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                found.add(package(node.module))
    return found - set(sys.stdlib_module_names) - {"agentlab"}


def test_the_core_installs_what_it_imports_and_nothing_else(checkout: Path) -> None:
    project = tomllib.loads((checkout / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    declared = [
        *project["dependencies"],
        *(text for name in ("mlflow", "notebook", "otlp", "plot", "postgres", "ray", "wandb") for text in extras[name]),
    ]
    names = {re.split(r"[>=<\[]", text)[0].replace("-", "_") for text in declared} - STARTED
    assert names == imported(checkout / "agentlab", checkout / "tools", checkout / "envs")


def test_everything_that_is_declared_is_pinned(checkout: Path) -> None:
    project = tomllib.loads((checkout / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [*project["dependencies"], *(t for texts in project["optional-dependencies"].values() for t in texts)]
    pins = {
        line.split("==")[0].lower().replace("_", "-")
        for line in (checkout / "constraints.txt").read_text().splitlines()
    }
    assert {re.split(r"[>=<\[]", text)[0].replace("_", "-") for text in wanted} - {project["name"]} <= pins


def test_the_wheel_takes_no_name_of_another_project(wheel: Path) -> None:
    tops = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"agentlab"}


@pytest.mark.parametrize("editable", [False, True], ids=["wheel", "editable"])
def test_an_installed_agentlab_works_from_another_folder(
    editable: bool, wheel: Path, source: Path, tmp_path: Path
) -> None:
    python = fresh_environment(tmp_path / "env")
    if editable:
        install(python, "--no-build-isolation", "--editable", str(source))
    else:
        install(python, str(wheel))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    assert "discover" in run([str(python.parent / "agentlab"), "--help"], elsewhere)
    servers, tasks, place = json.loads(run([str(python), "-c", CHECKS], elsewhere))
    assert "fit" in servers
    assert tasks == sorted(p.parent.name for p in source.glob("tasks/*/task.toml"))
    assert Path(place).is_relative_to(source if editable else tmp_path / "env")
