"""The documents hold: the README's commands run, in order, and links lead to files."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[1]
DOCUMENTS = sorted([*CHECKOUT.glob("*.md"), *CHECKOUT.glob("docs/*.md"), *CHECKOUT.glob("tasks/*/*.md")])
MARKED = re.compile(r"<!-- run -->\n```sh\n(.*?)```", re.DOTALL)
LINK = re.compile(r"\]\((?!https?://|#)([^)#\s]+)")


def test_the_readme_has_commands_to_run() -> None:
    assert len(MARKED.findall((CHECKOUT / "README.md").read_text(encoding="utf-8"))) >= 3


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda p: str(p.relative_to(CHECKOUT)))
@pytest.mark.usefixtures("bwrap")
def test_marked_commands_run(document: Path, tmp_path: Path) -> None:
    """All blocks of a document in one shell session, in a folder of its own, with agentlab on the path."""
    blocks = MARKED.findall(document.read_text(encoding="utf-8"))
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", "\n".join(blocks)],
        cwd=tmp_path,
        env=os.environ | {"PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda p: str(p.relative_to(CHECKOUT)))
def test_links_lead_to_files(document: Path) -> None:
    for target in LINK.findall(document.read_text(encoding="utf-8")):
        assert (document.parent / target).exists(), f"{document.name}: {target}"


def test_files_that_the_prose_names_are_there() -> None:
    for document in ("README.md", "CONTRIBUTING.md"):
        text = (CHECKOUT / document).read_text(encoding="utf-8")
        for name in re.findall(r"`((?:agentlab|scripts|tests)/[\w./]+\.\w+)`", text):
            assert (CHECKOUT / name).exists(), f"{document}: {name}"
