"""AdamW by torch's fused kernel, with factors for each tensor's learning rate and weight decay."""

from collections.abc import Iterable

import torch
from torch import Tensor
from train_mup import Scale, scale
from train_plan import Config


class AdamW:
    """AdamW (arXiv 1711.05101); matrices and tables decay, vectors do not.

    The kernel is called directly: torch.optim imports the compiler, which takes as long as torch itself.
    """

    def __init__(self, named: Iterable[tuple[str, Tensor]], c: Config) -> None:
        self.c, self.parameters = c, []
        self.groups: dict[tuple[bool, Scale], list[int]] = {}  # a call of the kernel for each
        for i, (name, p) in enumerate(named):
            self.parameters.append(p)
            self.groups.setdefault((p.dim() > 1, scale(c, name.rsplit(".", 1)[-1])), []).append(i)
        self.means = [torch.zeros_like(p, requires_grad=False) for p in self.parameters]
        self.squares = [torch.zeros_like(p, requires_grad=False) for p in self.parameters]
        self.steps = [torch.zeros((), device=p.device) for p in self.parameters]

    def step(self, lr: float) -> None:
        """One update from the gradients that the parameters hold."""
        with torch.no_grad():
            torch._foreach_add_(self.steps, 1)
            for (decays, factor), chosen in self.groups.items():
                gradients = [g for i in chosen if (g := self.parameters[i].grad) is not None]
                torch._fused_adamw_(
                    [self.parameters[i] for i in chosen], gradients, [self.means[i] for i in chosen],
                    [self.squares[i] for i in chosen], [], [self.steps[i] for i in chosen],
                    lr=lr * factor.rate, beta1=self.c.beta1, beta2=self.c.beta2,
                    weight_decay=self.c.weight_decay * factor.decay if decays else 0.0,
                    eps=1e-8, amsgrad=False, maximize=False,
                )  # fmt: skip

    def state(self) -> dict[str, list[Tensor]]:
        """What a checkpoint must keep."""
        return {"means": self.means, "squares": self.squares, "steps": self.steps}

    def load(self, state: dict[str, list[Tensor]]) -> None:
        """Takes what a checkpoint kept."""
        self.means, self.squares, self.steps = state["means"], state["squares"], state["steps"]
