"""Makes the replay notebook of a run, executes it on a kernel without network, and writes it with its HTML."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from agentlab.replay import Run
from agentlab.replay_cells import Asked, Cell, cells_of
from agentlab.replay_page import page
from agentlab.types import BackendError, EvaluationError
from agentlab.words import UsageError

NOTEBOOK, PAGE = "replay.ipynb", "replay.html"
SECONDS = 3600
"""What one cell may take: fitting all candidates of a long run anew takes about as long as the run."""

NEEDED = ("nbformat", "nbclient", "ipykernel")


def write(run: Run, out: Path, asked: Asked, *, html: bool = True, under: Sequence[str] = ()) -> list[Path]:
    """Execute the replay notebook of a run and write it below `out`; the files written.

    `asked.run` is left empty: the notebook names the run by its path from `out`. `under` is a command that the kernel
    is started under, such as one that takes its network away.

    Raises:
        BackendError: the extra `notebook` is not installed.
        EvaluationError: a cell fails, for one because a recorded value is not what is computed now. The notebook is
            written all the same, and shows where.
        UsageError: `out` cannot be written.
    """
    refuse_missing()
    folder = run.folder.resolve()
    try:
        out.mkdir(parents=True, exist_ok=True)
        place = os.path.relpath(folder, out.resolve())
        notebook = notebook_of(cells_of(run, replace(asked, run=place)))
        failed = execute(notebook, out, under)
        paths = [out / NOTEBOOK, *([out / PAGE] if html else [])]
        paths[0].write_text(_text(notebook), encoding="utf-8")
        if html:
            paths[1].write_text(page(notebook, f"Replay of {run.id}"), encoding="utf-8")
    except OSError as error:
        raise UsageError(f"--out={out}: {error.strerror}; give a folder that can be written") from error
    if failed:
        raise EvaluationError(f"{paths[0]}: {failed}")
    return paths


def refuse_missing() -> None:
    """Raise BackendError where a notebook cannot be executed here."""
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise BackendError(
            f"agentlab replay: {', '.join(missing)} is not installed; write: pip install 'agentlab-discovery[notebook]'"
        )


def notebook_of(cells: list[Cell]) -> Any:  # noqa: ANN401 - nbformat has no types
    """The cells as a notebook of format 4; ids are numbers, so that the same run gives the same notebook."""
    import nbformat.v4  # noqa: PLC0415 - an extra

    v4: Any = nbformat.v4  # its functions have no types
    made = []
    for number, cell in enumerate(cells):
        new = v4.new_code_cell if cell.code else v4.new_markdown_cell
        one = new(cell.text, id=f"c{number:03d}")
        if cell.tags:
            one.metadata["tags"] = list(cell.tags)
        made.append(one)
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return v4.new_notebook(cells=made, metadata={"kernelspec": kernel, "language_info": {"name": "python"}})


def execute(notebook: Any, folder: Path, under: Sequence[str] = ()) -> str:  # noqa: ANN401 - nbformat has no types
    """Execute the cells in order in `folder`; outputs go into the notebook. Why a cell failed, or ""."""
    from jupyter_client.kernelspec import KernelSpec  # noqa: PLC0415 - an extra
    from jupyter_client.manager import AsyncKernelManager  # noqa: PLC0415 - an extra
    from nbclient import NotebookClient  # noqa: PLC0415 - an extra
    from nbclient.exceptions import CellExecutionError, DeadKernelError  # noqa: PLC0415 - an extra

    with tempfile.TemporaryDirectory(prefix="agentlab-nb-") as place:
        # Sockets in a folder rather than ports: the kernel then needs no network at all, and nobody else reaches it.
        manager = AsyncKernelManager(transport="ipc", connection_file=f"{place}/kernel.json")
        manager._kernel_spec = KernelSpec(  # noqa: SLF001 - the interpreter that runs this, not one that is installed
            argv=[*under, sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"], language="python"
        )
        client = NotebookClient(
            notebook, km=manager, timeout=SECONDS, resources={"metadata": {"path": str(folder)}}, record_timing=False
        )
        try:
            client.execute(cleanup_kc=True, env=os.environ | {"IPYTHONDIR": place, "PYTHONSAFEPATH": "1"})
        except CellExecutionError as error:
            return f"a cell failed, {error.ename}: {' '.join(str(error.evalue).split())[:400]}"
        except DeadKernelError:
            return "the kernel died; run it again with fewer candidates: --entries 100"
    return ""


def _text(notebook: Any) -> str:  # noqa: ANN401 - nbformat has no types
    import nbformat  # noqa: PLC0415 - an extra

    formats: Any = nbformat
    formats.validate(notebook)
    return str(formats.writes(notebook)) + "\n"
