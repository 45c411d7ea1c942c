"""What changes in a training from step to step: weights, their averages, the optimizer and the losses."""

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from producers.encoders.training.training_state import read_state, write_state

MAX_GRADIENT_NORM = 1.0


@dataclass
class LoopState:
    """What changes from step to step, and is saved."""

    weights: dict[str, nn.Parameter]
    """The trained ones, by name."""
    optimizer: torch.optim.Optimizer
    means: list[torch.Tensor]
    """The exponential moving average of each weight."""
    losses: list[float]
    """Of each step so far; NaN of a skipped one."""

    @staticmethod
    def create(model: nn.Module, learning_rate: float, weight_decay: float) -> "LoopState":
        """Return the state before the first step."""
        weights = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
        optimizer = torch.optim.AdamW(
            weights.values(), learning_rate, betas=(0.9, 0.99), weight_decay=weight_decay, fused=True
        )
        return LoopState(weights, optimizer, [weight.detach().clone() for weight in weights.values()], [])

    def resume(self, folder: Path, identity: str, device: torch.device) -> None:
        """Continue from the saved state, if there is one.

        Raises:
            ConflictError: the folder has the state of a training with another identity.
            CorruptDataError: the state cannot be read.
        """
        saved = read_state(folder, identity, device)
        if not saved:
            return
        with torch.no_grad():
            for name, weight in self.weights.items():
                weight.copy_(saved["weights"][name])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.means = [saved["means"][name] for name in self.weights]
        self.losses = list(saved["losses"])

    def save(self, folder: Path, identity: str) -> None:
        """Save the state, which `resume` takes with the same identity."""
        content = {
            "weights": {name: weight.detach() for name, weight in self.weights.items()},
            "optimizer": self.optimizer.state_dict(),
            "means": dict(zip(self.weights, self.means, strict=True)),
            "losses": self.losses,
        }
        write_state(folder, identity, content)

    def set_learning_rate(self, rate: float) -> None:
        """Set the rate of the next update."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate

    def update(self, loss: float, ema_decay: float) -> None:
        """Change the weights by their gradients; skip the step if one of these or the loss is not finite.

        Loss and gradients are the same in all processes, so all of them skip a step, or none does.

        Args:
            loss: of the step.
            ema_decay: largest share of the former averages in the new ones.
        """
        trained = list(self.weights.values())
        norm = nn.utils.clip_grad_norm_(trained, MAX_GRADIENT_NORM)
        if not (math.isfinite(loss) and math.isfinite(float(norm))):
            self.losses.append(math.nan)
            return
        self.optimizer.step()
        self.losses.append(loss)
        _update_means(self.means, trained, ema_decay, sum(map(math.isfinite, self.losses)))

    def use_means(self) -> None:
        """Replace the weights by their averages."""
        with torch.no_grad():
            for weight, mean in zip(self.weights.values(), self.means, strict=True):
                weight.copy_(mean)


def _update_means(means: list[torch.Tensor], weights: list[nn.Parameter], decay: float, updates: int) -> None:
    """Move the mean weights towards the weights; in the first updates more than `decay` lets them, to forget the start.

    Args:
        means: changed in place.
        weights: of the same shapes.
        decay: largest share of the former means.
        updates: number of updates, this one included.
    """
    share = 1 - min(decay, (1 + updates) / (10 + updates))
    with torch.no_grad():
        for mean, weight in zip(means, weights, strict=True):
            mean.lerp_(weight, share)
