"""A checkpoint as something that gives logits: a folder of our trainer, or one in Hugging Face layout."""

import json
import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, Protocol

import torch
from infer_lines import InferError
from infer_plan import Measure, Place
from torch import Tensor

TRAINER = Path(__file__).resolve().parent.parent / "train"
"""Where the trainer's programs lie, whose model and export are used here."""


class Model(Protocol):
    """What a loss needs of a model; `positions` is the longest input in tokens."""

    positions: int
    byte_tokens: bool

    def logits(self, tokens: Tensor) -> Tensor:
        """tokens [batch, length] -> float32 logits [batch, length, vocabulary]."""
        ...

    def encode(self, text: str) -> tuple[list[int], int]:
        """Tokens of a text, and how many bytes the first of them covers."""
        ...


class Ours:
    """A model of the trainer, by the trainer's own code."""

    byte_tokens = True

    def __init__(self, folder: Path, device: torch.device) -> None:
        with _trainer():
            import train_export  # noqa: PLC0415 - lies in the trainer's folder
            import train_model  # noqa: PLC0415
            import train_plan  # noqa: PLC0415

        try:
            config, tensors = train_export.read(folder)
        except train_plan.ConfigError as error:
            raise InferError(error.what, "checkpoint", error.instead) from error
        self._model = train_model.Transformer(config).to(device)
        try:
            self._model.load_state_dict({name: torch.from_numpy(value) for name, value in tensors.items()})
        except RuntimeError as error:
            what = f"the tensors in {folder} do not fit its config"
            raise InferError(what, "checkpoint", "give a model that this trainer wrote") from error
        self.positions = config.context

    def logits(self, tokens: Tensor) -> Tensor:
        """Padded to the one length the model knows; what follows a position does not reach it."""
        length = tokens.shape[1]
        padded = torch.nn.functional.pad(tokens, (0, self.positions - length))
        out: Tensor = self._model(padded)[0][:, :length].float()
        return out

    def encode(self, text: str) -> tuple[list[int], int]:
        """Bytes."""
        return list(text.encode()), 1


class Stock:
    """A model in Hugging Face layout, by transformers; nothing is fetched and no code of the folder is run."""

    def __init__(self, folder: Path, device: torch.device, dtype: torch.dtype) -> None:
        auto_model, auto_tokenizer = _transformers()
        try:
            self.model = auto_model.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False, dtype=dtype
            ).to(device)
            self.tokenizer = auto_tokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            said = (str(error).splitlines() or [type(error).__name__])[0][:300]
            raise InferError(f"{folder} cannot be loaded: {said}", "checkpoint", "give an exported folder") from error
        self.model.eval()
        self.positions = int(getattr(self.model.config, "max_position_embeddings", None) or 1 << 20)
        every = "".join(map(chr, [*range(0x100), 0x20AC, 0x1F600]))
        self.byte_tokens = len(self.tokenizer) == 256 and self.encode(every)[0] == list(every.encode())

    def logits(self, tokens: Tensor) -> Tensor:
        """As transformers computes them."""
        out: Tensor = self.model(tokens).logits.float()
        return out

    def encode(self, text: str) -> tuple[list[int], int]:
        """Tokens by the folder's tokenizer, without special ones."""
        found = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        end = found["offset_mapping"][0][1] if found["input_ids"] else 0
        return list(found["input_ids"]), len(text[:end].encode())


def load(place: Place) -> Model:
    """The checkpoint, by the code that its folder asks for; raises InferError."""
    folder, device = Path(place.checkpoint), device_of(place)
    if is_stock(folder):
        return Stock(folder, device, getattr(torch, place.dtype))
    if place.dtype != "float32":
        what = "the trainer's own code computes its models in float32"
        raise InferError(what, "dtype", "write float32, or give the exported model")
    return Ours(folder, device)


def drawn(request: Measure) -> Any:  # noqa: ANN401 - a model of transformers
    """A model of the trainer's architecture in its stock form; speed does not depend on its drawn weights."""
    auto_model, _ = _transformers()
    from transformers import LlamaConfig  # noqa: PLC0415 - takes seconds

    with _trainer():
        import train_export  # noqa: PLC0415 - lies in the trainer's folder
        import train_plan  # noqa: PLC0415
    shape = {k: getattr(request, k) for k in ("d_model", "n_layers", "n_heads", "d_ff")}
    told = train_plan.Config(**shape, context=request.length + request.new_tokens)
    torch.manual_seed(request.seed)
    config = LlamaConfig.from_dict(train_export.configuration(told))
    return auto_model.from_config(config, dtype=getattr(torch, request.dtype)).to(device_of(request)).eval()


@contextmanager
def stock(place: Place) -> Iterator[Stock]:
    """The checkpoint in Hugging Face layout, exported to a folder of the moment when it is one of the trainer's."""
    with stock_folder(place) as folder:
        yield Stock(folder, device_of(place), getattr(torch, place.dtype))


@contextmanager
def stock_folder(place: Place) -> Iterator[Path]:
    """A folder in Hugging Face layout, at least as long as the block lasts.

    A model of the trainer is exported into the folder `out`, where a kill leaves it for the next attempt, or else into
    a temporary one.
    """
    folder = Path(place.checkpoint)
    if is_stock(folder):
        yield folder
        return
    with tempfile.TemporaryDirectory() if not place.out else nullcontext(place.out) as made:
        out = Path(made) / "export"
        if not out.is_dir():
            _export(folder, out)
        yield out


def _export(folder: Path, out: Path) -> None:
    with _trainer():
        import train_export  # noqa: PLC0415 - lies in the trainer's folder
        import train_plan  # noqa: PLC0415

    try:
        train_export.export(folder, out)
    except train_plan.ConfigError as error:
        where = "checkpoint" if error.where == "run" else f"checkpoint ({error.where})"
        raise InferError(error.what, where, error.instead) from error


def is_stock(folder: Path) -> bool:
    """Whether config.json is a model's: the folder of a training job has a file of that name with what was asked."""
    if not folder.is_dir():
        raise InferError(f"{folder} is no folder", "checkpoint", "give a trained or an exported one")
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and "model_type" in config


def device_of(place: Place | Measure) -> torch.device:
    """The device asked for; sets the number of threads. Raises InferError where it is not here."""
    torch.set_num_threads(place.threads)
    there = torch.cuda.is_available()
    if place.device == "cuda" and not there:
        raise InferError("no CUDA device is here", "device", "write cpu or auto")
    return torch.device("cuda" if there and place.device != "cpu" else "cpu")


@contextmanager
def _trainer() -> Iterator[None]:
    """Lets the trainer's modules be imported by their bare names, as they import one another."""
    sys.path.append(str(TRAINER))
    try:
        yield
    finally:
        sys.path.remove(str(TRAINER))


def _transformers() -> tuple[Any, Any]:
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    try:
        from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: PLC0415 - takes seconds
        from transformers.utils import logging as told  # noqa: PLC0415
    except ImportError as error:
        what = "transformers is not installed"
        raise InferError(what, "checkpoint", "pip install '.[infer]' in the checkout") from error
    told.disable_progress_bar()  # type: ignore[no-untyped-call]
    told.set_verbosity(logging.ERROR)
    return AutoModelForCausalLM, AutoTokenizer
