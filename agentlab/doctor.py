"""What this machine has, and what agentlab can use of it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil

from agentlab import __version__
from agentlab.catalog import data_folders


def examine() -> dict[str, str]:
    """One finding a part, in words; imports nothing heavy."""
    folders = data_folders()
    found = [str(f) for f in folders if f.is_dir()]
    return {
        "agentlab": __version__,
        "python": f"{platform.python_version()} on {platform.system()} {platform.machine()}",
        "cores": str(os.cpu_count()),
        "training": _package("torch", "pip install 'agentlab-discovery[train]' from the checkout"),
        "mcp": _package("mcp", "reinstall agentlab"),
        "docker": _program("docker", "not needed yet"),
        "bubblewrap": _program("bwrap", "not needed yet"),
        "data": ", ".join(found) if found else "none; set AGENTLAB_DATA to a folder that holds sldbench/ or laws/",
    }


def _package(name: str, remedy: str) -> str:
    if importlib.util.find_spec(name) is None:
        return f"missing ({remedy})"
    return importlib.metadata.version(name)


def _program(name: str, remedy: str) -> str:
    return shutil.which(name) or f"missing ({remedy})"
