"""Several runs at once on one device, and the two layouts of experts: each gives what it would have given alone."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs agentlab-discovery[train]")

from safetensors.torch import load_file  # noqa: E402
from trained import program, write_corpus  # noqa: E402

IMAGE = Path(str(files("agentlab.envs"))) / "images" / "train"
sys.path.insert(0, str(IMAGE))

import train_checkpoint  # noqa: E402
import train_experts  # noqa: E402
import train_packed  # noqa: E402
import train_plan  # noqa: E402
import train_run  # noqa: E402

SHAPE = {"d_model": 16, "n_layers": 2, "n_heads": 2, "d_ff": 32, "context": 32, "batch_sequences": 4}
RUN = {**SHAPE, "steps": 6, "segments": 2, "lr": 0.01, "report_every": 2, "valid_sequences": 16, "device": "cpu"}
DENSE = {**RUN, "ffn": "gelu", "positions": "learned"}
MIXED = {**RUN, "experts": 4, "top_k": 2, "split": 2, "shared": 1, "valid_every_segment": True}
OWN: list[dict[str, Any]] = [
    {"seed": 0},
    {"seed": 1, "lr": 0.003, "clip": 0.1},
    {"seed": 1, "schedule": "wsd", "balance_coef": 0.1},
]
WILD = {"lr": 10.0, "weight_decay": 10.0, "clip": 0.0, "warmup_share": 0.0}
Lines = list[dict[str, Any]]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_corpus(tmp_path_factory.mktemp("corpus")))


def configs(corpus: str, out: Path, shared: dict[str, Any], own: list[dict[str, Any]]) -> list[train_plan.Config]:
    return train_plan.parse_runs({**shared, "corpus": corpus, "out": str(out), "runs": own})


def pack(chosen: list[train_plan.Config], capsys: pytest.CaptureFixture[str]) -> Lines:
    capsys.readouterr()
    train_packed.train_packed(chosen)
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def assert_as_alone(c: train_plan.Config, alone: Path) -> None:
    """The run's result and model are, to rounding, those of the same config trained by itself."""
    train_run.train(replace(c, out=str(alone)))
    ours, theirs = (json.loads((Path(out) / "result.json").read_text()) for out in (c.out, alone))
    assert ours["valid_loss"] == pytest.approx(theirs["valid_loss"], rel=1e-4)
    assert {k: ours[k] for k in ("status", "step", "flops", "plan")} == {
        k: theirs[k] for k in ("status", "step", "flops", "plan")
    }
    models = [load_file(Path(out) / "model.safetensors") for out in (c.out, alone)]
    torch.testing.assert_close(models[0], models[1], rtol=1e-2, atol=1e-4)


@pytest.mark.parametrize("shared", [DENSE, MIXED], ids=["dense", "moe"])
def test_packed_runs_come_to_what_each_comes_to_alone(
    shared: dict[str, Any], corpus: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = configs(corpus, tmp_path / "packed", shared, OWN)
    lines = pack(chosen, capsys)
    for i, c in enumerate(chosen):
        events = [line["event"] for line in lines if line.get("run") == i]
        segment = ["progress", "progress", "segment"]
        check = ["validation"] * bool(c.valid_every_segment)
        assert events == [*segment, *check, *segment, "validation", "done"]
        assert_as_alone(c, tmp_path / f"alone{i}")
        assert not (Path(c.out) / "checkpoint.pt").exists()
    digests = {line["digest"] for line in lines if line["event"] == "done"}
    assert len(digests) == len(chosen)


def test_a_packed_run_that_diverges_leaves_the_others_alone(
    corpus: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = configs(corpus, tmp_path / "packed", {**MIXED, "steps": 24, "lr": 0.003}, [WILD, {"seed": 1}])
    lines = pack(chosen, capsys)
    ended = {line["run"]: line["status"] for line in lines if line["event"] == "done"}
    assert ended == {0: "diverged", 1: "ok"}
    assert [line["run"] for line in lines if line["event"] == "diverged"] == [0]
    assert_as_alone(chosen[1], tmp_path / "alone")


def test_a_run_begun_alone_is_finished_in_a_pack_that_catches_up_with_it(
    corpus: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = configs(corpus, tmp_path / "packed", MIXED, OWN[:2])
    train_run.train(chosen[0], one_segment=True)
    lines = pack(chosen, capsys)
    assert [(line["run"], line["step"]) for line in lines if line["event"] == "resume"] == [(0, 3)]
    assert [line["step"] for line in lines if line.get("run") == 0 and line["event"] == "segment"] == [6]
    for i, c in enumerate(chosen):
        assert_as_alone(c, tmp_path / f"alone{i}")


def test_a_pack_is_planned_as_one_of_its_runs(tmp_path: Path) -> None:
    shared = {**RUN, "corpus": "c", "out": str(tmp_path)}
    (tmp_path / "one").write_text(json.dumps(shared))
    (tmp_path / "two").write_text(json.dumps({**shared, "runs": OWN}))
    one, two = (program("train", "main.py", ["--plan", str(tmp_path / name)]) for name in ("one", "two"))
    assert two == {**one, "runs": len(OWN)}


@pytest.mark.parametrize(
    ("own", "where", "says"),
    [
        ([{"seed": 0}], "runs", '[{"seed": 0}, {"seed": 1}]'),
        ([{"seed": 0}, {"d_model": 32}], "runs[1].d_model", "beside runs"),
        ([{"seed": 0}, {"lr": 99}], "lr", "from 0 to 10"),
    ],
)
def test_runs_that_cannot_be_packed_are_refused(own: list[dict[str, Any]], where: str, says: str) -> None:
    with pytest.raises(train_plan.ConfigError) as caught:
        configs("c", Path("o"), RUN, own)
    assert caught.value.where == where
    assert says in caught.value.instead


def test_a_compiled_model_takes_no_part_in_votes_or_packs(corpus: str, tmp_path: Path) -> None:
    chosen = configs(corpus, tmp_path, {**RUN, "compile": True}, OWN)
    with pytest.raises(train_plan.ConfigError, match="replicas would not agree"):
        train_run.train(chosen[0], one_segment=True)
    with pytest.raises(train_plan.ConfigError, match="not compiled"):
        train_packed.train_packed(chosen)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("gated", [True, False])
def test_both_layouts_of_experts_give_the_same_output_and_gradients(gated: bool) -> None:
    n, k, e, d, h = 40, 2, 6, 8, 12
    chance = torch.Generator().manual_seed(0)
    chosen = torch.stack([torch.randperm(e - 1, generator=chance)[:k] for _ in range(n)])  # the last expert gets none
    chosen[:30, 0], chosen[:30, 1] = 0, 3
    counts = torch.bincount(chosen.view(-1), minlength=e)
    x, gates, w_in, w_out = (
        torch.randn(shape, generator=chance, requires_grad=True)
        for shape in ((n, d), (n, k), (e, d, h * (1 + gated)), (e, h, d))
    )
    direction = torch.randn(n, d, generator=chance)
    found = []
    for layout in (train_experts.dispatch(chosen, counts), train_experts.groups(chosen, counts)):
        y = train_experts.expert_ffn(x, gates, w_in, w_out, layout, gated)
        found.append([y, *torch.autograd.grad(y, (x, gates, w_in, w_out), direction)])
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-5)
    assert not found[1][3][-1].any()


def test_grouped_products_are_left_to_widths_that_their_kernels_can_take() -> None:
    cpu = torch.device("cpu")
    assert train_experts.groups_fit(torch.float32, (12, 24), cpu)
    assert not train_experts.groups_fit(torch.float32, (12, 6), cpu)
    assert not train_experts.groups_fit(torch.bfloat16, (16, 12), cpu)


def test_a_config_that_asks_for_nothing_new_is_known_by_its_old_keys() -> None:
    plain = train_plan.parse({**RUN, "corpus": "c", "out": "o"})
    assert not set(train_checkpoint.LATER) & set(train_checkpoint.identity(plain))
    grouped = replace(plain, expert_products="groups")
    assert set(train_checkpoint.identity(grouped)) - set(train_checkpoint.identity(plain)) == {"expert_products"}
