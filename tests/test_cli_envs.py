"""The verbs about sandboxes, through the real command line: list, check, run and build."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from test_discover import AGENTLAB, agentlab

from agentlab.catalog import sandbox_names
from agentlab.testing import SANDBOX_CHECKS

UNREACHABLE = {"DOCKER_HOST": "unix:///nonexistent/docker.sock"}


def without_docker(*given: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """The command line where no engine answers."""
    env = {**os.environ, **UNREACHABLE}
    return subprocess.run([str(AGENTLAB), *given], cwd=cwd, capture_output=True, text=True, check=False, env=env)


def test_every_sandbox_is_listed_with_what_it_is_good_for(tmp_path: Path) -> None:
    rows = {row["sandbox"]: row for row in json.loads(agentlab("envs", "list", "--json", cwd=tmp_path).stdout)}
    assert set(rows) == set(sandbox_names())
    assert (rows["local"]["confines"], rows["docker"]["confines"]) == (False, True)
    words = without_docker("envs", cwd=tmp_path).stdout.splitlines()
    assert any(line.startswith("docker ") and "start it" in line for line in words)
    assert words[-1].startswith("next: agentlab envs ")


def test_a_sandbox_is_checked_for_real(bwrap: str, tmp_path: Path) -> None:
    done = agentlab("envs", "check", "bubblewrap", "--json", cwd=tmp_path)
    found = json.loads(done.stdout)
    assert found["sandbox"] == "bubblewrap"
    assert set(found["passed"]) > set(SANDBOX_CHECKS)


def test_auto_is_checked_and_says_which_it_is_and_why(bwrap: str, tmp_path: Path) -> None:
    done = without_docker("envs", "run", "--json", "auto", "true", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["sandbox"] == "bubblewrap"


@pytest.mark.parametrize("name", ["local", "bubblewrap", "docker"])
def test_a_command_runs_and_its_output_and_exit_code_come_back(
    name: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    request.getfixturevalue({"local": "checkout", "bubblewrap": "bwrap", "docker": "law_image"}[name])
    code = "import sys; print('out'); print('err', file=sys.stderr); sys.exit(7)"
    done = agentlab("envs", "run", name, "--timeout", "60", "--", "python3", "-c", code, cwd=tmp_path, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (7, "out\n", "err\n")


def test_a_command_that_takes_too_long_is_killed_and_that_is_said(bwrap: str, tmp_path: Path) -> None:
    given = ("envs", "run", "bubblewrap", "--timeout", "1", "--", "sleep", "600")
    done = agentlab(*given, cwd=tmp_path, check=False)
    assert done.returncode == 137
    assert done.stderr == "agentlab: bubblewrap: killed after 1 s\n"


def test_the_whole_story_of_a_command_comes_as_json(bwrap: str, tmp_path: Path) -> None:
    given = ("envs", "run", "bubblewrap", "--timeout", "1", "--json", "--", "sh", "-c", "echo before; sleep 600")
    found = json.loads(agentlab(*given, cwd=tmp_path, check=False).stdout)
    assert (found["stdout"], found["timed_out"], found["returncode"]) == ("before\n", True, -9)
    assert found["argv"] == ["sh", "-c", "echo before; sleep 600"]


@pytest.mark.parametrize(
    ("given", "code", "said"),
    [
        (("envs", "check", "dokcer"), 2, "docker"),
        (("envs", "run", "bubblewrp", "--", "true"), 2, "bubblewrap"),
        (("envs", "build", "lwa"), 5, "law"),
        (("envs", "build", "bsae=x"), 2, "base"),
        (("envs", "run", "docker", "--", "true"), 5, "no Docker engine answers; start it"),
        (("envs", "check", "docker"), 5, "no Docker engine answers; start it"),
        (("envs", "build", "law"), 5, "no Docker engine answers; start it"),
        (("envs", "run", "local", "--", "/no/such/program"), 5, "/no/such/program: cannot be started"),
    ],
)
def test_a_mistake_gets_one_line_that_says_what_to_do(
    given: tuple[str, ...], code: int, said: str, tmp_path: Path
) -> None:
    done = without_docker(*given, cwd=tmp_path)
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.returncode == code
