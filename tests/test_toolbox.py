"""The MCP client: real servers over stdio, started, called, replaced, refused."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_selection import planted
from toolboxes import Use, children, shared

from agentlab.run_rows import Intake, write_rows
from agentlab.toolbox import ServerSpec, Toolbox, call_once, find_tools, list_tools
from agentlab.types import AgentlabError, BackendError, EvaluationError

FIT = ServerSpec("fit", "agentlab.tools.fit", copies=2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("run")
    task, rows = planted(60)
    write_rows(path, Intake(task, rows))
    return path


@pytest.fixture(scope="module")
def use() -> Iterator[Use]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPENAI_API_KEY", "sk-secret")
        with shared(Toolbox([FIT])) as run:
            yield run


def test_many_candidates_in_one_call_come_back_in_order(use: Use, folder: Path) -> None:
    formulas = ["E + A/N**a + B/D**b", "E + A/N**a", "__import__('os')", "a*N**-b*D**-c*foo(N)"]

    async def work(toolbox: Toolbox) -> Any:
        calls = [toolbox.call("fit.laws", {"data": str(folder), "formulas": formulas}) for _ in range(4)]
        return await asyncio.gather(*calls)

    answers = use(work)
    assert all(a == answers[0] for a in answers)
    outcomes = answers[0]["outcomes"]
    assert [o["status"] for o in outcomes] == ["ok", "ok", "rejected", "rejected"]
    assert outcomes[0]["objective"] < outcomes[1]["objective"]
    assert outcomes[2]["reason"].startswith("not a formula")


def test_a_refusal_comes_back_as_the_tools_own_line(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match=r"fit\.laws: .*give a run folder") as told:
        call_once("fit.laws", {"data": str(tmp_path / "nowhere"), "formulas": ["a*x"]})
    assert "\n" not in str(told.value)


def test_wrong_arguments_are_told_in_one_line() -> None:
    with pytest.raises(EvaluationError) as told:
        call_once("fit.law", {"data": 3, "seed": "many"})
    line = str(told.value)
    assert "\n" not in line
    for word in ("fit.law", "data = 3: ", "formula is missing", "seed = 'many': "):
        assert word in line


def test_a_server_that_died_is_replaced_and_asked_again(use: Use, folder: Path) -> None:
    arguments = {"data": str(folder), "formulas": ["E + A/N**a"]}

    async def work(toolbox: Toolbox) -> Any:
        before = await toolbox.call("fit.laws", arguments)
        for child in children(FIT.module):
            os.kill(child, signal.SIGKILL)
        return before, [await toolbox.call("fit.laws", arguments) for _ in range(3)]

    before, after = use(work)
    assert after == [before] * 3


def test_secrets_of_our_environment_do_not_reach_a_tool_server(use: Use, folder: Path) -> None:
    async def work(toolbox: Toolbox) -> Any:
        await toolbox.call("fit.law", {"data": str(folder), "formula": "E + A/N**a"})
        return [(Path("/proc") / str(c) / "environ").read_bytes() for c in children(FIT.module)]

    assert os.environ["OPENAI_API_KEY"] == "sk-secret"
    environments = use(work)
    assert environments
    assert not any(b"sk-secret" in e for e in environments)


def test_an_unknown_server_or_one_that_cannot_start_is_told_in_one_line(use: Use) -> None:
    async def work(toolbox: Toolbox) -> Any:
        return await toolbox.call("fitt.laws", {})

    with pytest.raises(BackendError, match="fitt"):
        use(work)

    async def broken() -> None:
        async with Toolbox([ServerSpec("x", "agentlab.tools.no_such_module")]):
            pass

    with pytest.raises(BackendError, match="did not start"):
        asyncio.run(broken())


def test_every_tool_has_a_description_and_annotations() -> None:
    names = {t["name"] for t in list_tools()}
    assert {"fit.law", "fit.laws", "fit.refit"} <= names
    assert all(t["description"] for t in list_tools())


def test_a_question_finds_our_own_tools() -> None:
    found = find_tools("fit many formulas in one call", 3)
    assert found[0]["name"] == "fit.laws"
    assert found[0]["schema"]["required"] == ["data", "formulas"]
    assert len(found) == 3


def test_the_single_fit_tells_how_well_its_parameters_are_known(use: Use, folder: Path) -> None:
    async def work(toolbox: Toolbox) -> Any:
        return await toolbox.call("fit.law", {"data": str(folder), "formula": "E + A/N**a + B/D**b"})

    answer = use(work)
    params = answer["params"]["all"]["loss"]
    assert abs(params["E"] - 1.69) < 0.3
    assert answer["converged"]["all"]["loss"] > 0
    assert np.isfinite(answer["condition"]["all"]["loss"])


# ---- servers at a URL ----

TOKEN = "a-token-for-tests-only"  # noqa: S105 -- opens nothing
TOKEN_ENV = "FIT_TOKEN"  # noqa: S105 -- the name of a variable


@contextmanager
def serving(module: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """A server over HTTP on a free port: its address and its process."""
    command = [sys.executable, "-m", module, "--http", "0"]
    environment = os.environ | {"AGENTLAB_TOKEN": TOKEN}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        try:
            yield json.loads(process.stdout.readline())["url"], process
        finally:
            process.kill()


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """The fit server."""
    with serving("agentlab.tools.fit") as (url, _):
        yield url


def test_a_server_at_a_url_is_called_with_its_token(url: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIT_TOKEN", TOKEN)
    arguments = {"data": str(folder), "formula": "E + A/N**a"}

    async def main() -> Any:
        async with Toolbox([ServerSpec("far", url=url, token_env=TOKEN_ENV)]) as toolbox:
            return await toolbox.call("far.law", arguments), await toolbox.find_tools("fit one formula", 1)

    answer, found = asyncio.run(main())
    assert answer == call_once("fit.law", arguments)
    assert found[0].name == "far.law"


@pytest.mark.parametrize(
    ("token", "told"), [("", r"set \$FIT_TOKEN"), ("wrong-token-for-tests", "is .*FIT_TOKEN right")]
)
def test_a_missing_or_wrong_token_is_told_in_one_line(
    url: str, token: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FIT_TOKEN", token)

    async def main() -> None:
        async with Toolbox([ServerSpec("far", url=url, token_env=TOKEN_ENV)]):
            pass

    with pytest.raises(BackendError, match=told) as error:
        asyncio.run(main())
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({}, "either a module or a url"),
        ({"module": "m", "url": "http://127.0.0.1/mcp"}, "either a module or a url"),
        ({"module": "m", "copies": 0}, "write 1 or more"),
        ({"url": "http://lab.example.org/mcp", "token_env": "T"}, "write https"),
    ],
)
def test_a_server_that_cannot_be_meant_is_refused(given: dict[str, Any], told: str) -> None:
    with pytest.raises(AgentlabError, match=told):
        ServerSpec("x", **given)
    assert ServerSpec("x", url="http://[::1]:8000/mcp", token_env=TOKEN_ENV).name == "x"
