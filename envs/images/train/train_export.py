"""Exports a trained model in Hugging Face layout, as a stock architecture: train_export.py RUN_FOLDER OUT_FOLDER.

A dense SwiGLU model becomes Llama, a mixture of experts becomes Qwen2-MoE: it has no norms on queries and keys, a
softmax over all experts before the choice, gates normalised or not, and shared experts. What it has and the trainer has
not is made neutral: biases are zero; the shared expert's own gate is zero, which halves it, so its output matrix is
doubled; a model without shared experts gets one of zeros. The scale of the gates goes into the experts' outputs, that
of attention under mup into the queries. Rows of queries and keys are put in the order of rotate-half instead of
neighbouring pairs. Weights stay in float32, and any server of that architecture computes the logits of the trainer.

Prints one JSON line, event `export`; what cannot be exported gives one `error` line and exit code 2.
"""

import hashlib
import json
import math
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from train_lines import emit
from train_mup import attention_scale
from train_plan import Config, ConfigError, parse
from train_tokenizer import write_tokenizer

Array = NDArray[np.float32]
Tensors = dict[str, Array]

EPSILON = float(np.finfo(np.float32).eps)
"""What torch's rms_norm adds when it is told nothing."""
NO_SHARED_WIDTH = 8
"""Width of the shared expert of zeros: small, and a multiple of the usual numbers of devices."""


def read(run: Path) -> tuple[Config, Tensors]:
    """Config and float32 tensors of a run's model.safetensors; raises ConfigError."""
    path = run / "model.safetensors"
    if not path.is_file():
        what = f"{path} is not there"
        raise ConfigError(what, "run", "give the folder of a finished run that was trained with save_model true")
    try:
        with safe_open(str(path), framework="numpy") as file:
            told = (file.metadata() or {}).get("config")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
    except (SafetensorError, TypeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}", "run", "train it again") from error
    if told is None:
        raise ConfigError(f"{path} holds no config", "run", "give a model that this trainer wrote")
    return parse({**json.loads(told), "corpus": "-", "out": "-"}), tensors


def refuse(c: Config) -> None:
    """Raises ConfigError for what no stock architecture computes."""
    if c.ffn != "swiglu":
        raise ConfigError(f"{c.ffn} has no stock architecture with rotary positions here", "ffn", "train with swiglu")
    if c.positions != "rope":
        what = f"{c.positions} positions do not fit Llama or Qwen2-MoE"
        raise ConfigError(what, "positions", "train with rope")


def configuration(c: Config) -> dict[str, object]:
    """The content of config.json."""
    same: dict[str, object] = {
        "vocab_size": 256, "hidden_size": c.d_model, "num_hidden_layers": c.n_layers,
        "num_attention_heads": c.n_heads, "num_key_value_heads": c.n_heads, "head_dim": c.d_model // c.n_heads,
        "hidden_act": "silu", "max_position_embeddings": c.context, "rms_norm_eps": EPSILON,
        "rope_theta": 10000.0, "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
        "tie_word_embeddings": False, "attention_dropout": 0.0, "use_cache": True, "torch_dtype": "float32",
        "bos_token_id": None, "eos_token_id": None, "pad_token_id": None,
    }  # fmt: skip
    if not c.experts:
        kind = {"architectures": ["LlamaForCausalLM"], "model_type": "llama"}
        return {**kind, **same, "intermediate_size": c.d_ff, "attention_bias": False, "mlp_bias": False}
    width = c.d_ff // c.split
    return {
        "architectures": ["Qwen2MoeForCausalLM"], "model_type": "qwen2_moe", **same,
        "intermediate_size": c.d_ff,  # of dense layers, of which there are none
        "moe_intermediate_size": width, "shared_expert_intermediate_size": width * c.shared or NO_SHARED_WIDTH,
        "num_experts": c.experts * c.split, "num_experts_per_tok": c.top_k * c.split,
        "norm_topk_prob": c.normalise_gates, "decoder_sparse_step": 1, "mlp_only_layers": [],
        "qkv_bias": True, "use_sliding_window": False, "output_router_logits": False,
    }  # fmt: skip


def weights(c: Config, ours: Tensors) -> Tensors:
    """The tensors under their stock names; raises ConfigError where the file lacks one that its config promises."""
    try:
        found = {
            "model.embed_tokens.weight": ours["embedding"],
            "model.norm.weight": ours["norm"],
            "lm_head.weight": ours["head"],
        }
        for layer in range(c.n_layers):
            part = {k.removeprefix(f"blocks.{layer}."): v for k, v in ours.items() if k.startswith(f"blocks.{layer}.")}
            block = {**_attention(c, part), **(_mixture(c, part) if c.experts else _dense(part, "mlp"))}
            found |= {f"model.layers.{layer}.{name}": value for name, value in block.items()}
    except KeyError as error:
        raise ConfigError(f"the model has no tensor {error}", "run", "give a model that this trainer wrote") from error
    return {name: np.ascontiguousarray(value, dtype=np.float32) for name, value in found.items()}


def _attention(c: Config, part: Tensors) -> Tensors:
    q, k, v = np.split(part["qkv"], 3)
    scale = attention_scale(c)
    if scale is not None:
        q = q * np.float32(scale * math.sqrt(c.d_model // c.n_heads))
    found = {
        "input_layernorm.weight": part["norm_attention"], "post_attention_layernorm.weight": part["norm_ffn"],
        "self_attn.q_proj.weight": _halves(q, c.n_heads), "self_attn.k_proj.weight": _halves(k, c.n_heads),
        "self_attn.v_proj.weight": v, "self_attn.o_proj.weight": part["out"],
    }  # fmt: skip
    if c.experts:  # Qwen2-MoE has biases
        found |= {f"self_attn.{name}_proj.bias": np.zeros(c.d_model, np.float32) for name in "qkv"}
    return found


def _halves(rows: Array, heads: int) -> Array:
    """Rows [heads * width, d] from neighbouring rotary pairs to first and second half of each head."""
    d = rows.shape[1]
    return rows.reshape(heads, -1, 2, d).swapaxes(1, 2).reshape(-1, d)


def _dense(part: Tensors, name: str, scale: float = 1.0, own: str = "ffn") -> Tensors:
    gate, up = np.split(part[f"{own}.w_in"], 2)
    down = part[f"{own}.w_out"] * np.float32(scale)
    return {f"{name}.gate_proj.weight": gate, f"{name}.up_proj.weight": up, f"{name}.down_proj.weight": down}


def _mixture(c: Config, part: Tensors) -> Tensors:
    scale = c.gate_scale or float(c.top_k * c.split if c.normalise_gates else 1)
    found = {
        "mlp.gate.weight": part["ffn.router"],
        "mlp.shared_expert_gate.weight": np.zeros((1, c.d_model), np.float32),
    }
    for number, (w_in, w_out) in enumerate(zip(part["ffn.w_in"], part["ffn.w_out"], strict=True)):
        one = {"ffn.w_in": w_in.T, "ffn.w_out": w_out.T}
        found |= _dense(one, f"mlp.experts.{number}", scale)
    if c.shared:
        return found | _dense(part, "mlp.shared_expert", 2.0, "ffn.shared")
    nothing = {"ffn.w_in": np.zeros((2 * NO_SHARED_WIDTH, c.d_model), np.float32)}
    nothing["ffn.w_out"] = np.zeros((c.d_model, NO_SHARED_WIDTH), np.float32)
    return found | _dense(nothing, "mlp.shared_expert")


def export(run: Path, out: Path) -> dict[str, object]:
    """Writes the folder `out`, which must not be there yet; it appears whole. Returns what the line tells."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"{out} is not an empty folder", "out", "give a new folder")
    c, ours = read(run)
    refuse(c)
    stock = weights(c, ours)
    part = out.with_name(out.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    save_file(stock, part / "model.safetensors", metadata={"format": "pt"})
    config = configuration(c)
    _write(part / "config.json", config)
    _write(part / "generation_config.json", {"do_sample": True})
    write_tokenizer(part, c.context)
    part.replace(out)
    return {
        "folder": str(out), "architecture": _first(config["architectures"]), "tensors": len(stock),
        "params": sum(t.size for t in ours.values()), "stored_params": sum(t.size for t in stock.values()),
        "sha256": dict(_digests(out)),
    }  # fmt: skip


def _first(names: object) -> str:
    return str(names[0]) if isinstance(names, list) else str(names)


def _digests(folder: Path) -> Iterator[tuple[str, str]]:
    for path in sorted(folder.iterdir()):
        with path.open("rb") as file:
            yield path.name, hashlib.file_digest(file, "sha256").hexdigest()


def _write(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def main(arguments: list[str]) -> int:
    """Exit code: 0 exported, 2 not."""
    try:
        run, out = (Path(a) for a in arguments)
    except ValueError:
        emit("error", what=f"{len(arguments)} arguments", where="command line", instead="write RUN_FOLDER OUT_FOLDER")
        return 2
    try:
        emit("export", **export(run, out))
    except ConfigError as error:
        emit("error", what=error.what, where=error.where, instead=error.instead)
        return 2
    except OSError as error:
        emit("error", what=str(error), where="out", instead="give a folder that can be written")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
