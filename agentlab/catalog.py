"""Finds tasks, tool servers, sandboxes, proposers and data by name; an unknown name gets the nearest."""

from __future__ import annotations

import importlib
import importlib.util
import os
import pkgutil
from importlib import resources
from pathlib import Path
from typing import Any

from agentlab.errors import nearest
from agentlab.files import cache_folder
from agentlab.task_file import read_design_table, read_head, read_task_file
from agentlab.types import AgentlabError, BackendError, Head, Task

TASK_FILE = "task.toml"


class CatalogError(AgentlabError):
    """A name that nothing in the catalog has."""


# ---- tasks ----


def task_names() -> list[str]:
    """The names of the tasks that ship with agentlab and of those in ./tasks, sorted."""
    return sorted({folder.name for root in _task_roots() for folder in _task_folders(root)})


def load_task(name: str) -> Task:
    """The task of that name, or in the folder of that path.

    Raises:
        CatalogError: there is no such task, or its task.toml is wrong; the line says what to write.
    """
    return read_task_file(_task_folder(name), find_data)


def task_heads() -> list[Head]:
    """What the tasks say without their rows, by name; rows need not be at hand."""
    return [read_head(_task_folder(name), find_data) for name in task_names()]


def task_head(name: str) -> Head:
    """The same for one task. Raises CatalogError where there is none."""
    return read_head(_task_folder(name), find_data)


def load_design(name: str) -> tuple[Path, dict[str, Any]] | None:
    """The folder of a task and its table [design], None where it has none. Raises CatalogError, TaskFileError."""
    folder = _task_folder(name)
    told = read_design_table(folder)
    return None if told is None else (folder, told)


def _task_folder(name: str) -> Path:
    for folder in (*(root / name for root in _task_roots()), Path(name)):
        if (folder / TASK_FILE).is_file():
            return folder.resolve()
    if Path(name).is_dir():
        raise CatalogError(
            f"task={name}: the folder has no {TASK_FILE}; write one, as tasks/moe_leverage/{TASK_FILE} shows"
        )
    raise CatalogError(f"task={name}: no such task; {nearest(name, task_names())}")


def _task_roots() -> list[Path]:
    """The user's ./tasks goes before what is installed, so that a copy can be changed."""
    installed = importlib.util.find_spec("agentlab.tasks")
    shipped = [Path(p) for p in (installed.submodule_search_locations or [])] if installed else []
    return [Path("tasks"), *shipped]


def _task_folders(root: Path) -> list[Path]:
    return [file.parent for file in root.glob(f"*/{TASK_FILE}")] if root.is_dir() else []


# ---- data ----


def data_folders() -> list[Path]:
    """The folders of $AGENTLAB_DATA (a path list), or the user's cache where it is not set."""
    given = os.environ.get("AGENTLAB_DATA")
    named = [Path(part).expanduser() for part in (given or "").split(os.pathsep) if part]
    if named:
        return named
    return [cache_folder() / "data"]


def find_data(name: str) -> Path | None:
    """The file of that path, or of that path inside one of data_folders(); None where there is none."""
    places = [Path(name).expanduser(), *(folder / name for folder in data_folders())]
    return next((place for place in places if place.is_file()), None)


# ---- plug-ins: one file, one thing ----


def server_names() -> list[str]:
    """The names of the tool servers that ship with agentlab."""
    return _modules("agentlab.tools")


def find_server(name: str) -> str:
    """The module of a tool server: "fit" -> "agentlab.tools.fit"; "package.module" is taken as it stands.

    Raises:
        CatalogError: no module has that name.
    """
    return _find("tool server", name, "agentlab.tools")


def sandbox_names() -> list[str]:
    """The names of the sandboxes that ship with agentlab."""
    return _modules("agentlab.envs")


def find_sandbox(name: str) -> type:
    """The class `Sandbox` of envs/<name>.py, or "package.module:Name". Raises CatalogError, BackendError."""
    return find_class("sandbox", name, "agentlab.envs", "Sandbox")


def find_proposer(name: str) -> type:
    """The proposer of proposers/<name>.py: its class is the module's name in capitals, "mutate" -> Mutate.

    "package.module:Name" is taken as it stands. Raises CatalogError, BackendError.
    """
    return find_class("proposer", name, "agentlab.proposers", name.title().replace("_", ""))


def find_class(kind: str, name: str, package: str, attribute: str) -> type:
    """The class that `name` means: a module of `package`, or "package.module:Name".

    Raises:
        CatalogError: nothing has that name.
        BackendError: the module exists and cannot be imported, for want of another package.
    """
    module_name, colon, given = name.partition(":")
    module_name = module_name if colon else _find(kind, name, package)
    wanted = given or attribute
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as exc:
        if exc.name and module_name.startswith(exc.name):
            raise CatalogError(f"{kind}={name}: no module {exc.name!r}; {nearest(name, _modules(package))}") from exc
        raise BackendError(f"{kind}={name}: {module_name} needs the package {exc.name!r}; install it") from exc
    found = getattr(module, wanted, None)
    if not isinstance(found, type):
        public = [n for n, v in vars(module).items() if isinstance(v, type) and v.__module__ == module_name]
        raise CatalogError(f"{kind}={name}: {module_name} has no class {wanted!r}; {nearest(wanted, public)}")
    return found


def _find(kind: str, name: str, package: str) -> str:
    names = _modules(package)
    if name in names:
        return f"{package}.{name}"
    if "." in name and _exists(name):
        return name
    raise CatalogError(f"{kind}={name}: no such {kind}; {nearest(name, names)}")


def _modules(package: str) -> list[str]:
    spec = importlib.util.find_spec(package)
    if spec is None or spec.submodule_search_locations is None:
        return []
    return sorted(m.name for m in pkgutil.iter_modules(spec.submodule_search_locations) if not m.name.startswith("_"))


def _exists(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def image_folder(name: str) -> Path:
    """The folder envs/images/<name>. Raises CatalogError where there is none."""
    root = Path(str(resources.files("agentlab.envs"))) / "images"
    if not (root / name).is_dir():
        raise CatalogError(
            f"image {name!r}: no such image; {nearest(name, sorted(p.name for p in root.glob('[a-z]*')))}"
        )
    return root / name
