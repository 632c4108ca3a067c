"""The lab in the settings of MCP clients: put in once, everything else left as it was, broken files left alone."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from agentlab.cli_mcp import mcp_app
from agentlab.cli_mcp_clients import CLIENTS
from agentlab.errors import AgentlabError

CODEX = """# how I like it
model = "m"  # the best

[mcp_servers.agentlab]
command = "old"
# ours, and gone with it
args = ["x"]

[mcp_servers.agentlab.env]
A = "1"

# about the other one
[mcp_servers.other]
command = "y"
"""
CLAUDE = {"projects": {"/p": {"é": [1, 2.5, None]}}, "mcpServers": {"other": {"command": "y"}}, "last": True}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home and a project's folder of their own."""
    (tmp_path / "project").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path / "project")
    return tmp_path


def install(*words: str) -> str:
    done = CliRunner().invoke(mcp_app, ["install", *words], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def refusal(*words: str) -> str:
    with pytest.raises(AgentlabError) as told:
        CliRunner().invoke(mcp_app, ["install", *words], catch_exceptions=False)
    assert "\n" not in str(told.value)
    return str(told.value)


def server_of(path: Path) -> Any:
    text = path.read_text()
    return (tomllib.loads(text)["mcp_servers"] if path.suffix == ".toml" else json.loads(text)["mcpServers"])[
        "agentlab"
    ]


@pytest.mark.parametrize("name", sorted(CLIENTS))
def test_a_client_without_settings_gets_a_file_that_starts_our_server(home: Path, name: str) -> None:
    assert f"start {name} anew" in install(name)
    path = home / CLIENTS[name].user
    entry = server_of(path)
    assert entry["args"] == ["mcp", "--root", str(home / "project")]
    assert Path(entry["command"]).name == "agentlab"
    assert path.stat().st_mode & 0o077 == 0
    before = path.read_bytes()
    assert "stands there already" in install(name)
    assert path.read_bytes() == before
    assert not list(path.parent.glob("*.bak*"))


@pytest.mark.parametrize("name", sorted(CLIENTS))
def test_a_projects_file_is_shared_and_names_no_folder_of_one_machine(home: Path, name: str) -> None:
    install(name, "--project")
    assert server_of(home / "project" / CLIENTS[name].project)["args"] == ["mcp"]
    assert not (home / CLIENTS[name].user).exists()


def test_everything_else_in_a_json_file_stays_and_a_copy_is_kept(home: Path) -> None:
    path = home / ".claude.json"
    path.write_text(json.dumps(CLAUDE))
    path.chmod(0o600)
    install("claude")
    made = json.loads(path.read_text())
    assert made["mcpServers"].pop("agentlab")["type"] == "stdio"
    assert made == CLAUDE
    assert list(made) == list(CLAUDE)
    assert json.loads((home / ".claude.json.bak").read_text()) == CLAUDE
    assert path.stat().st_mode & 0o777 == 0o600


def test_every_other_line_of_a_toml_file_stays(home: Path) -> None:
    path = home / ".codex" / "config.toml"
    path.parent.mkdir()
    path.write_text(CODEX)
    install("codex")
    text = path.read_text()
    for line in ("# how I like it", 'model = "m"  # the best', "# about the other one\n[mcp_servers.other]"):
        assert line in text
    assert "ours, and gone" not in text
    assert server_of(path)["tool_timeout_sec"] == 60
    assert "env" not in server_of(path)
    assert (path.parent / "config.toml.bak").read_text() == CODEX


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("claude", '{"a": '),
        ("claude", "[1]"),
        ("cursor", '{"mcpServers": []}'),
        ("codex", "a = "),
        ("codex", 'mcp_servers = { agentlab = { command = "x" } }'),
        ("codex", 'mcp_servers.agentlab.command = "x"'),
    ],
)
def test_a_broken_file_is_refused_in_one_line_and_left_alone(home: Path, name: str, text: str) -> None:
    path = home / CLIENTS[name].user
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    assert "it is left as it is" in refusal(name)
    assert path.read_text() == text
    assert sorted(p.name for p in path.parent.glob("*.bak*")) == []


def test_a_dry_run_prints_the_file_and_writes_nothing(home: Path) -> None:
    assert '"mcpServers"' in install("cursor", "--dry-run")
    assert not (home / ".cursor").exists()
    told = json.loads(install("cursor", "--dry-run", "--json"))
    assert told["changed"]
    assert not (home / ".cursor").exists()


def test_what_cannot_be_meant_is_refused(home: Path) -> None:
    assert "did you mean 'claude'?" in refusal("claud")
    assert "there is no such folder" in refusal("claude", "--root", "nowhere")
    assert "everything on this machine" in refusal("claude", "--root", "/")


def test_the_server_starts_with_little_more_than_the_protocol_needs() -> None:
    """Processor time, for a busy machine takes longer: at most twice that of the protocol's own library."""

    def seconds(module: str) -> float:
        code = f"import {module}; import os; import sys; print(sum(os.times()[:2]), *sys.modules)"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        spent, *modules = done.stdout.split()
        assert not {"scipy", "torch", "matplotlib", "langgraph", "openai", "sympy", "pandas"} & set(modules)
        return float(spent)

    assert seconds("agentlab.tools.lab") < 2 * seconds("mcp.server.mcpserver")
