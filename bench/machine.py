"""What a measurement was made on, and where results are kept."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("numpy", "scipy", "mcp", "langgraph", "pydantic", "torch", "transformers", "openai", "docker", "ray")


def about() -> dict[str, Any]:
    """Processor, cores and versions."""
    processor = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.processor(),
    )
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {"processor": processor, "cores": os.cpu_count(), "python": platform.python_version(), "versions": versions}


def save(result: dict[str, Any]) -> Path:
    """Keep a result with its machine under bench/results/<bench>.json."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{result['bench']}.json"
    path.write_text(json.dumps(result | {"machine": about()}, indent=1) + "\n")
    return path
