"""The images: built on a real engine, kept while nothing changes, told when they are stale, and fit for their use."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from agentlab.envs import Limits, SandboxError
from agentlab.envs._build import build, image_names
from agentlab.envs.docker import CONTENT, image_content
from agentlab.envs.docker import Sandbox as Docker
from conftest import _image
from trained import RUN, write_corpus

ROOMY = Limits(memory_bytes=3 << 30, cpu_seconds=600, processes=128, disk_bytes=256 << 20, file_bytes=128 << 20)
"""For our own programs with torch."""


def silent(line: str) -> None:
    assert line


def test_the_law_image_is_kept_while_nothing_that_it_is_made_of_changes(law_image: str) -> None:
    told: list[str] = []
    again = build("law", told.append)
    assert (again.image, again.kept, told) == ("agentlab/law", True, [])
    label = f"{{{{index .Config.Labels {json.dumps(CONTENT)}}}}}"
    shown = ["docker", "image", "inspect", "--format", label, law_image]
    assert subprocess.run(shown, capture_output=True, text=True, check=True).stdout.strip() == image_content("law")


def test_the_law_image_has_numbers_and_nothing_of_agentlab(law_image: str) -> None:
    code = "import importlib.util as u, numpy, scipy; print(u.find_spec('agentlab'), u.find_spec('torch'))"

    async def inner() -> str:
        async with Docker() as box:
            done = await box.exec([box.python, "-c", code])
            return str(done.stdout + done.stderr)

    assert asyncio.run(inner()) == "None None\n"


def test_an_image_of_another_version_is_told_with_the_command_that_mends_it(law_image: str, tmp_path: Path) -> None:
    """Another version of agentlab is a copy of this one with a line more in the program of the image."""
    copy = tmp_path / "agentlab"
    checkout = Path(__file__).parents[1]
    skip = shutil.ignore_patterns("__pycache__")
    shutil.copytree(checkout / "agentlab", copy, ignore=skip)
    for name in ("envs", "tools", "tasks"):
        shutil.copytree(checkout / name, copy / name, ignore=skip)
    with (copy / "envs" / "images" / "law" / "main.py").open("a", encoding="utf-8") as program:
        program.write("# another version\n")
    code = "import agentlab; from agentlab.envs.docker import Sandbox; print(agentlab.__file__, Sandbox.missing('law'))"
    env = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env, cwd=tmp_path
    )
    place, _, lacks = done.stdout.strip().partition(" ")
    assert place == str(copy / "__init__.py")
    assert lacks == "agentlab/law was built by another version of agentlab; build it anew: agentlab envs build law"


def test_a_base_that_cannot_be_had_gives_one_line(engine: str) -> None:
    with pytest.raises(
        SandboxError, match=r"^base=localhost:9/nosuch:1 is not in the engine and cannot be pulled: .+$"
    ):
        build("law", silent, base="localhost:9/nosuch:1")


def test_a_base_without_python_gives_one_line(law_image: str, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY Dockerfile /\n")
    name = "agentlab-tests/empty:1"
    subprocess.run(["docker", "build", "--quiet", "--tag", name, str(tmp_path)], capture_output=True, check=True)
    try:
        with pytest.raises(SandboxError, match=rf"^base {name} has no python3 .*; name one that has$"):
            build("law", silent, base=name)
    finally:
        subprocess.run(["docker", "image", "rm", "--force", name], capture_output=True, check=True)


def test_an_image_that_does_not_exist_gets_the_nearest(engine: str) -> None:
    with pytest.raises(SandboxError, match=r"no such image; .*law"):
        build("lwa", silent)


def test_the_train_image_trains_in_a_container_and_its_checkpoint_comes_back(engine: str, tmp_path: Path) -> None:
    _image("train")
    write_corpus(tmp_path)
    config = {**RUN, "corpus": "corpus", "out": "out", "steps": 5, "valid_sequences": 4}

    async def inner() -> tuple[list[dict[str, Any]], bytes]:
        async with Docker("train", ROOMY) as box:
            for name in ("train.bin", "valid.bin"):
                await box.put(f"corpus/{name}", (tmp_path / name).read_bytes()[:20_000])
            command = [box.python, f"{box.programs}/main.py"]
            done = await box.exec(command, stdin=json.dumps(config), timeout=300)
            assert done.returncode == 0, done
            lines = [json.loads(line) for line in done.stdout.splitlines()]
            listed = await box.exec([box.python, "-c", "import os; print(*sorted(os.listdir('out')))"])
            (weights, *_) = [name for name in listed.stdout.split() if name.endswith(".safetensors")]
            return lines, await box.get(f"out/{weights}")

    lines, weights = asyncio.run(inner())
    assert [line["event"] for line in lines][:: len(lines) - 1] == ["start", "done"]
    assert (lines[-1]["status"], lines[-1]["step"]) == ("ok", 5)
    size = int.from_bytes(weights[:8], "little")  # a safetensors file: length of its head, head as JSON, numbers
    assert json.loads(weights[8 : 8 + size])


@pytest.mark.skipif("infer" not in image_names(), reason="no image infer yet")
def test_the_infer_image_imports_what_its_programs_need(engine: str) -> None:
    _image("infer")

    async def inner() -> str:
        async with Docker("infer", ROOMY) as box:
            code = "import torch, transformers, openai; print('all there')"
            done = await box.exec([box.python, "-c", code], timeout=300)
            return str(done.stdout or done.stderr)

    assert asyncio.run(inner()) == "all there\n"
