"""torch.compile of a model, for runs that are long enough to pay for it."""

import os
import shutil

import torch
from train_model import MoE, Transformer, rotary
from train_plan import ConfigError


def compile_forward(model: Transformer, device: torch.device) -> None:
    """Compiles the model's forward pass, and with it the backward; routed experts stay as they are.

    Their products depend on how many tokens each expert gets, so compiling them would start over again and again.
    On CUDA this has not run on a device. Raises ConfigError on CPU without a C++ compiler.
    """
    if device.type == "cpu" and shutil.which(os.environ.get("CXX", "g++")) is None:
        raise ConfigError("no C++ compiler is here", "compile", "write false, or install g++")
    model.angles = rotary(model.context, model.width, device)  # else the first step would compile another program
    for module in model.modules():
        if isinstance(module, MoE):
            module.routed = torch.compiler.disable(module.routed)  # type: ignore[method-assign, no-untyped-call]
    model.forward = torch.compile(model.forward)  # type: ignore[method-assign]
