"""The doctor: what it finds, and that every remedy it names is a command."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from agentlab.catalog import sandbox_names
from agentlab.doctor import Finding, examine, records


def by_part() -> dict[str, Finding]:
    return {one.part: one for one in examine()}


def test_every_sandbox_is_examined_and_what_auto_takes() -> None:
    found = by_part()
    assert {f"sandbox {name}" for name in sandbox_names()} < found.keys()
    assert found["sandbox local"].works
    assert found["sandbox auto"].use == "what sandbox=auto takes" or not found["sandbox auto"].works


def test_a_working_machine_names_its_engine_and_its_strongest_sandbox(law_image: str, bwrap: str) -> None:
    found = by_part()
    assert found["docker engine"].works
    assert "Engine " in found["docker engine"].found
    assert (found["sandbox docker"].found, found["sandbox auto"].found) == ("works", "docker")


def test_a_machine_without_sandboxes_is_told_one_command_for_each(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nonexistent/docker.sock")
    monkeypatch.setenv("PATH", str(tmp_path))
    found = by_part()
    for part, command in {
        "docker engine": "apt-get install docker.io && dockerd &",
        "sandbox docker": "apt-get install docker.io && dockerd &",
        "sandbox bubblewrap": "apt-get install bubblewrap",
        "sandbox auto": "apt-get install bubblewrap",
    }.items():
        assert (found[part].works, found[part].remedy) == (False, command)


def test_what_is_missing_has_a_remedy_that_begins_with_a_command() -> None:
    known = ("apt-get", "pip", "agentlab", "sysctl")
    for one in examine():
        if not one.works and one.part not in ("gpu", "sandbox ray"):
            assert one.remedy.startswith(known), one
            assert "\n" not in one.remedy


def test_a_gpu_is_no_need() -> None:
    found = by_part()["gpu"]
    assert found.works == (shutil.which("nvidia-smi") is not None or Path("/dev/nvidia0").exists())
    assert "nothing needs it" in found.use


def test_the_records_hold_every_part_once() -> None:
    findings = examine()
    kept = records(findings)
    assert list(kept) == [one.part for one in findings]
    assert set(kept["python"]) == {"works", "found", "use", "remedy"}
