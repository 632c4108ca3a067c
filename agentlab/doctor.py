"""What this machine has, what agentlab can use of it, and for what is missing the one command that mends it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from agentlab import __version__
from agentlab.catalog import data_folders, find_sandbox, sandbox_names
from agentlab.envs import Sandbox, SandboxError
from agentlab.envs._choose import choose
from agentlab.envs.docker import engine
from agentlab.types import AgentlabError


@dataclass(frozen=True)
class Finding:
    """One part: whether it works, what was found, what it is for, and the command that mends it."""

    part: str
    works: bool
    found: str
    use: str
    remedy: str = ""


def examine() -> list[Finding]:
    """Every part, the needed ones first; imports nothing heavy that is not there to be tried."""
    return [
        Finding("agentlab", True, __version__, "this"),
        Finding(
            "python", True, f"{platform.python_version()} on {platform.system()} {platform.machine()}", "everything"
        ),
        Finding("cores", True, str(os.cpu_count()), "searching side by side"),
        *(_package(*row) for row in PACKAGES),
        *_sandboxes(),
        _engine(),
        _gpu(),
        _data(),
    ]


PACKAGES = (
    ("mcp", "mcp", "tool servers", ""),
    ("sympy", "sympy", "tools of the server algebra", ""),
    ("training", "torch", "training runs (train), checkpoints (infer)", "train"),
    ("transformers", "transformers", "serving and measuring checkpoints (infer)", "infer"),
    ("plots", "matplotlib", "plots of agentlab audit", "plot"),
    ("ray", "ray", "sandboxes on a cluster", "ray"),
)
"""Name, package, what it is for, and the extra that brings it ("" for what agentlab itself needs)."""


def _package(part: str, package: str, use: str, extra: str) -> Finding:
    if importlib.util.find_spec(package) is None:
        wanted = f"'.[{extra}]'" if extra else "."
        return Finding(part, False, "missing", use, f"pip install {wanted} in the checkout")
    return Finding(part, True, f"{package} {importlib.metadata.version(package)}", use)


def sandboxes() -> list[dict[str, object]]:
    """Every sandbox: its name, whether it confines hostile code, its strength, and what it misses here."""
    known: list[tuple[str, type[Sandbox]]] = [(name, find_sandbox(name)) for name in sandbox_names()]
    rows = [
        {"sandbox": n, "confines": k.confines, "strength": k.strength, "missing": k.missing("law")} for n, k in known
    ]
    return sorted(rows, key=lambda row: -int(str(row["strength"])))


def _sandboxes() -> list[Finding]:
    found = []
    for row in sandboxes():
        name, lacks = str(row["sandbox"]), str(row["missing"])
        use = "programs that a model wrote" if row["confines"] else "programs of ours only"
        found.append(Finding(f"sandbox {name}", not lacks, lacks.partition(";")[0] or "works", use, _remedy(lacks)))
    try:
        chosen = choose("auto")
        found.append(Finding("sandbox auto", True, chosen.name, "what sandbox=auto takes"))
    except AgentlabError:
        lines = "apt-get install bubblewrap"
        found.append(Finding("sandbox auto", False, "none confines here", "programs that a model wrote", lines))
    return found


def _remedy(lacks: str) -> str:
    """The command in a sandbox's own line, which says what is wrong; what to do."""
    told = lacks.partition(";")[2].strip()
    for lead in ("build it: ", "build it anew: "):
        told = told.removeprefix(lead)
    if "(Debian: " in told:
        told = told.partition("(Debian: ")[2].removesuffix(")")
    return told


def _engine() -> Finding:
    use = "the sandbox docker"
    try:
        here = engine()
    except SandboxError as error:
        return Finding("docker engine", False, str(error).partition(";")[0], use, _remedy(str(error)))
    version: Mapping[str, object] = here.client.version()
    parts = {str(c["Name"]): str(c["Version"]) for c in version.get("Components", [])}  # type: ignore[attr-defined]
    told = ", ".join(f"{name} {parts[name]}" for name in ("Engine", "containerd", "runc") if name in parts)
    here.client.close()
    kernel = "gVisor (runsc) is used" if here.runtime == "runsc" else "no gVisor: containers share this kernel"
    return Finding("docker engine", True, f"{told}; {kernel}", use)


def _gpu() -> Finding:
    found = shutil.which("nvidia-smi") is not None or Path("/dev/nvidia0").exists()
    return Finding("gpu", found, "NVIDIA" if found else "none", "faster training; nothing needs it")


def _data() -> Finding:
    use = "tasks whose rows are other people's"
    found = [str(f) for f in data_folders() if f.is_dir()]
    if not found:
        return Finding("data", False, "none", use, "agentlab data get sldbench_vocab")
    return Finding("data", True, ", ".join(found), use)


def records(findings: list[Finding]) -> dict[str, dict[str, object]]:
    """The findings by part, for JSON."""
    return {f.part: {k: v for k, v in asdict(f).items() if k != "part"} for f in findings}
