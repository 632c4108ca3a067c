"""What the command line loads before it is asked to do anything: nothing heavy."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("torch", "ray", "docker", "matplotlib", "scipy", "langgraph", "mcp", "openai")
CALL = "import sys; sys.argv = ['agentlab', *sys.argv[1:]]; from agentlab.cli import main; main()"


def loaded(program: str, *words: str) -> set[str]:
    """The top-level packages that a program imports; it must end well."""
    command = [sys.executable, "-X", "importtime", "-c", program, *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr.splitlines()[-1]
    rows = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    return {row.rsplit("|", 1)[1].strip().split(".")[0] for row in rows}


@pytest.mark.parametrize("words", [("--help",), ("--version",), ("discover", "--help")], ids=" ".join)
def test_asking_for_help_loads_nothing_heavy(words: tuple[str, ...]) -> None:
    found = loaded(CALL, *words)
    assert "agentlab" in found
    assert not found & set(HEAVY)


def test_the_measurement_sees_a_heavy_import_that_is_there() -> None:
    assert "scipy" in loaded("import scipy.stats")
