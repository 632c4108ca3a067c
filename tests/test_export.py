"""Exported checkpoints: a stock architecture computes the trainer's own logits, and its tokenizer is the bytes."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs agentlab-discovery[train]")
transformers = pytest.importorskip("transformers", reason="needs agentlab-discovery[infer]")

import trained  # noqa: E402
from safetensors import safe_open  # noqa: E402
from safetensors.torch import save_file  # noqa: E402

sys.path.insert(0, str(trained.IMAGES / "train"))

import train_export  # noqa: E402
import train_model  # noqa: E402

MODELS: dict[str, dict[str, Any]] = {
    "dense": trained.RUN,
    "mixture": trained.MIXTURE,
    "no shared expert, gates as they are": {**trained.MIXTURE, "shared": 0, "normalise_gates": False},
    "two shared experts, scaled gates": {**trained.MIXTURE, "shared": 2, "gate_scale": 3.0, "n_heads": 4},
    "one of four experts": {**trained.MIXTURE, "top_k": 1, "split": 1, "shared": 0, "normalise_gates": False},
}


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained.write_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module", params=MODELS, ids=lambda name: name.replace(" ", "-"))
def run(request: pytest.FixtureRequest, corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    trained.train(folder, corpus, MODELS[request.param])
    trained.export(folder, folder / "exported")
    return folder


@pytest.fixture(scope="module")
def dense(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dense")
    trained.train(folder, corpus, {**trained.RUN, "steps": 2})
    return folder


def ours(run: Path) -> tuple[Any, Any]:
    config, tensors = train_export.read(run)
    model = train_model.Transformer(config)
    model.load_state_dict({name: torch.from_numpy(value) for name, value in tensors.items()})
    return model, config


def stock(folder: Path) -> Any:
    model, told = transformers.AutoModelForCausalLM.from_pretrained(
        folder, local_files_only=True, output_loading_info=True
    )
    assert not any(told.values()), told  # no tensor missing, unexpected or of another shape
    return model.eval()


def test_the_exported_model_gives_the_logits_of_the_trainer(run: Path, corpus: Path) -> None:
    model, config = ours(run)
    exported = stock(run / "exported")
    assert exported.dtype == torch.float32
    text = torch.tensor(list((corpus / "valid.bin").read_bytes()[: 8 * config.context])).view(8, -1)
    noise = torch.randint(256, (8, config.context), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        for tokens in (text, noise):
            wanted = model(tokens)[0]
            for length in (1, 2, 17, config.context):
                found = exported(tokens[:, :length]).logits
                assert float((found - wanted[:, :length]).abs().max()) <= 1e-4


def test_a_cache_of_keys_and_values_changes_nothing(run: Path) -> None:
    model, config = ours(run)
    exported = stock(run / "exported")
    tokens = torch.randint(256, (2, config.context), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        out = exported(tokens[:, :10], use_cache=True)
        for at in range(10, 20):
            out = exported(tokens[:, at : at + 1], use_cache=True, cache=out.cache)
        assert float((out.logits[:, -1] - model(tokens)[0][:, 19]).abs().max()) <= 1e-4


def test_the_layout_is_what_servers_read(run: Path) -> None:
    folder = run / "exported"
    names = {path.name for path in folder.iterdir()}
    assert names == {
        "config.json", "model.safetensors", "generation_config.json", "tokenizer.json", "tokenizer_config.json",
        "chat_template.jinja",
    }  # fmt: skip
    config = json.loads((folder / "config.json").read_text())
    assert config["architectures"] in (["LlamaForCausalLM"], ["Qwen2MoeForCausalLM"])
    with safe_open(str(folder / "model.safetensors"), framework="pt") as file:
        assert file.metadata() == {"format": "pt"}


def test_the_tokens_of_a_text_are_its_bytes(dense: Path) -> None:
    trained.export(dense, dense / "for-tokens")
    tokenizer = transformers.AutoTokenizer.from_pretrained(dense / "for-tokens", local_files_only=True)
    every = "".join(map(chr, [*range(0x800), 0x20AC, 0xFFFD, *range(0x10000, 0x110000, 0x1000), 0x10FFFF]))
    for text in (every, "  two  blanks\r\n\ttab ", "don't you'll 123", "<s></s><|endoftext|>"):
        ids = tokenizer(text)["input_ids"]
        assert ids == list(text.encode())
        assert tokenizer.decode(ids) == text
    assert len(tokenizer) == 256
    assert tokenizer.all_special_ids == []


def test_all_256_bytes_have_a_token_of_their_own_and_come_back(dense: Path) -> None:
    trained.export(dense, dense / "for-bytes")
    tokenizer = transformers.AutoTokenizer.from_pretrained(dense / "for-bytes", local_files_only=True)
    letters = tokenizer.convert_ids_to_tokens(list(range(256)))
    assert len(set(letters)) == 256
    assert tokenizer.convert_tokens_to_ids(letters) == list(range(256))
    for byte in range(256):  # also those that stand in no UTF-8 text
        assert tokenizer.decode([byte]) == bytes([byte]).decode(errors="replace")


def test_a_chat_is_its_messages_and_nothing_else(dense: Path) -> None:
    trained.export(dense, dense / "for-chat")
    tokenizer = transformers.AutoTokenizer.from_pretrained(dense / "for-chat", local_files_only=True)
    said = [{"role": "user", "content": "def f"}, {"role": "assistant", "content": "(x):\n"}]
    assert tokenizer.apply_chat_template(said, tokenize=False) == "def f(x):\n"


@pytest.mark.parametrize(("key", "value"), [("ffn", "gelu"), ("positions", "learned")])
def test_what_no_stock_architecture_computes_is_refused(corpus: Path, tmp_path: Path, key: str, value: str) -> None:
    trained.train(tmp_path, corpus, {**trained.RUN, "steps": 1, key: value})
    line = trained.program("train", "train_export.py", [str(tmp_path), str(tmp_path / "out")], code=2)
    assert line["event"] == "error"
    assert line["where"] == key
    assert value in line["what"]
    assert "\n" not in line["what"] + line["instead"]
    assert not (tmp_path / "out").exists()


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    line = trained.program("train", "train_export.py", [str(tmp_path), str(tmp_path / "out")], code=2)
    assert "model.safetensors is not there" in line["what"]


def test_a_model_of_somebody_else_is_refused(tmp_path: Path) -> None:
    save_file({"weight": torch.ones(2)}, str(tmp_path / "model.safetensors"))
    line = trained.program("train", "train_export.py", [str(tmp_path), str(tmp_path / "out")], code=2)
    assert "holds no config" in line["what"]
    (tmp_path / "model.safetensors").write_bytes(b"no tensors at all")
    line = trained.program("train", "train_export.py", [str(tmp_path), str(tmp_path / "out")], code=2)
    assert "cannot be read" in line["what"]


def test_a_model_that_lacks_a_tensor_is_refused(dense: Path, tmp_path: Path) -> None:
    with safe_open(str(dense / "model.safetensors"), framework="pt") as file:
        kept = {name: file.get_tensor(name) for name in file.keys() if name != "blocks.1.qkv"}  # noqa: SIM118
        save_file(kept, str(tmp_path / "model.safetensors"), metadata=file.metadata())
    line = trained.program("train", "train_export.py", [str(tmp_path), str(tmp_path / "out")], code=2)
    assert "qkv" in line["what"]
    assert not list(tmp_path.glob("out*"))


def test_an_export_never_writes_into_a_folder_that_holds_something(dense: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("kept")
    line = trained.program("train", "train_export.py", [str(dense), str(tmp_path)], code=2)
    assert line["where"] == "out"
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_the_same_model_gives_the_same_bytes(dense: Path) -> None:
    first, second = (trained.export(dense, dense / name) for name in ("one", "two"))
    assert first["sha256"] == second["sha256"]


def test_a_query_turns_alike_by_neighbouring_pairs_and_by_halves() -> None:
    heads, width, length = 3, 8, 50
    rows = torch.arange(heads * width, dtype=torch.float32).view(-1, 1)
    order = torch.from_numpy(train_export._halves(rows.numpy(), heads)).view(-1).long()
    x = torch.randn(1, length, heads, width, generator=torch.Generator().manual_seed(3))
    turn = train_model.rotary(length, width, torch.device("cpu"))
    pairs = train_model.rotate(x, turn)
    ours = pairs.reshape(1, length, -1)[..., order].view_as(x)
    low, high = x.reshape(1, length, -1)[..., order].view_as(x).chunk(2, -1)
    real, imaginary = torch.view_as_real(turn).unbind(-1)
    theirs = torch.cat([low * real - high * imaginary, high * real + low * imaginary], -1)
    assert torch.allclose(ours, theirs, atol=1e-6)
    assert not torch.allclose(pairs, theirs, atol=1e-2)  # the order of the rows matters
