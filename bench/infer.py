"""Exported checkpoints and their speed, as `infer` measures them: `python bench/infer.py`.

Two small models, dense and mixture of experts, are trained for a few steps on the standard library's text and exported.
Shown: how far transformers' logits and loss are from the trainer's own (bar: 1e-4), and time to the first token, time
of each later one and throughput against batch and length, on the checkpoint and through `transformers serve`. Times are
medians with quartiles, beside the load of the machine; the ratio of server to checkpoint is the figure to keep.
"""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path
from typing import Any

from agentlab.envs._processes import environment
from machine import RESULTS, about, save

IMAGES = Path(__file__).resolve().parents[1] / "envs" / "images"
SHAPE = {"d_model": 64, "n_layers": 2, "n_heads": 4, "d_ff": 192, "context": 256}
RUN = {**SHAPE, "steps": 60, "batch_sequences": 4, "lr": 0.003, "valid_sequences": 64, "device": "cpu"}
MODELS = {"dense": RUN, "mixture": {**RUN, "d_ff": 96, "experts": 8, "top_k": 2, "split": 2, "shared": 1}}
GRID = {"batches": [1, 8], "lengths": [16, 128], "new_tokens": 16, "repeats": 5}
HEAD = (
    "| batch | length | first token, ms | each later, ms | tokens/s | server: first, ms | each, ms | tokens/s | ratio |"
)
Line = dict[str, Any]


def corpus(folder: Path) -> Path:
    """About 2 MB of Python text, one module in ten for validation."""
    modules = sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))
    (folder / "train.bin").write_bytes(b"".join(m.read_bytes() for i, m in enumerate(modules) if i % 10))
    (folder / "valid.bin").write_bytes(b"".join(m.read_bytes() for m in modules[::10]))
    return folder


def program(image: str, name: str, arguments: list[str], asked: Line | None = None) -> Line:
    """The last line of one of our programs."""
    done = subprocess.run(
        [sys.executable, str(IMAGES / image / name), *arguments], input=json.dumps(asked), capture_output=True,
        text=True, env=environment({"HF_HUB_OFFLINE": "1"}), check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    last: Line = json.loads(done.stdout.splitlines()[-1])
    return last


def logit_difference(run: Path, text: bytes) -> float:
    """Largest |difference| over 8 windows of the text, in float32."""
    sys.path[:0] = [str(IMAGES / "infer"), str(IMAGES / "train")]
    import infer_model  # noqa: PLC0415 - after the path is set
    import infer_plan  # noqa: PLC0415
    import torch  # noqa: PLC0415

    ours, theirs = (infer_model.load(infer_plan.Place(str(f), "cpu")) for f in (run, run / "exported"))
    tokens = torch.tensor(list(text[: 8 * ours.positions])).view(8, -1)
    with torch.inference_mode():
        return float((ours.logits(tokens) - theirs.logits(tokens)).abs().max())


def through_a_server(checkpoint: Path) -> Line:
    """Times through `transformers serve`, its start included."""
    asked = json.dumps({"task": "serve", "checkpoint": str(checkpoint), "device": "cpu", "seconds": 600})
    server = subprocess.Popen(
        [sys.executable, str(IMAGES / "infer" / "main.py")], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, text=True, env=environment(),
    )  # fmt: skip
    assert server.stdin is not None
    assert server.stdout is not None
    try:
        server.stdin.write(asked)
        server.stdin.close()
        ready = next(line for line in map(json.loads, server.stdout) if line["event"] == "ready")
        where = {"base_url": ready["base_url"], "model": ready["model"]}
        times = program("infer", "main.py", [], {"task": "stream", **where, **GRID})
        return {**times, "start_seconds": ready["start_seconds"]}
    finally:
        server.terminate()  # which stops its child too
        server.wait()


def measure(name: str, text: Path, folder: Path) -> Line:
    """All figures of one model."""
    run = folder / name
    trained = program("train", "main.py", [], {**MODELS[name], "corpus": str(text), "out": str(run)})
    exported = program("train", "train_export.py", [str(run), str(run / "exported")])
    speed = {"task": "speed", "checkpoint": str(run), "device": "cpu", **GRID}
    asked = {"task": "perplexity", "data": str(text / "valid.bin"), "windows": RUN["valid_sequences"]}
    loss = program("infer", "main.py", [], {**asked, "checkpoint": str(run / "exported")})
    return {
        "params": exported["params"], "architecture": exported["architecture"], "valid_loss": trained["valid_loss"],
        "logit_difference": logit_difference(run, (text / "valid.bin").read_bytes()),
        "loss_difference": abs(loss["nats_per_byte"] - trained["valid_loss"]),
        "checkpoint": program("infer", "main.py", [], speed),
        "server": through_a_server(run / "exported"),
    }  # fmt: skip


def table(result: Line) -> str:
    """The Markdown that is kept."""
    lines = ["# Exported checkpoints and their speed", "", str(about()), "", __doc__.split("\n\n", 1)[1].strip(), ""]
    for name in MODELS:
        model = result[name]
        local, server = model["checkpoint"], model["server"]
        load = f"{local['machine']['load_before']:.1f} to {server['machine']['load_after']:.1f}"
        far = f"logits {model['logit_difference']:.1e}, of the loss {model['loss_difference']:.1e}"
        lines += [
            f"## {name}: {model['architecture']}, {model['params']} parameters\n",
            f"Largest difference of {far}. Load {load} on {local['machine']['cores']} cores.",
            f"Bytes: {local['memory_bytes']}. `transformers serve` answers after {server['start_seconds']:.1f} s.\n",
            HEAD,
            "|---|---|---|---|---|---|---|---|---|",
        ]
        for a, b in zip(local["cells"], server["cells"], strict=True):
            ratio = b["tokens_per_second"] / a["tokens_per_second"]
            lines.append(f"| {a['batch']} | {a['length']} | {_times(a)} | {_times(b)} | {ratio:.2f} |")
        lines.append("")
    return "\n".join(lines)


def _times(cell: Line) -> str:
    low, high = (1e3 * q for q in cell["ttft_seconds_quartiles"])
    first = f"{1e3 * cell['ttft_seconds']:.1f} ({low:.1f}..{high:.1f})"
    return f"{first} | {1e3 * cell['seconds_per_token']:.2f} | {cell['tokens_per_second']:.0f}"


def main() -> None:
    """Measure, print a table and a JSON line, keep both."""
    begun = time.perf_counter()
    result: Line = {"bench": "infer", "grid": GRID}
    with tempfile.TemporaryDirectory() as name:
        text = corpus(Path(name))
        result |= {model: measure(model, text, Path(name)) for model in MODELS}
    result["seconds"] = round(time.perf_counter() - begun, 1)
    shown = table(result)
    print(shown)
    print(json.dumps(result | about()))
    (RESULTS / "infer.md").write_text(shown + "\n", encoding="utf-8")
    save(result)


if __name__ == "__main__":
    main()
