"""The denoising loss: how well the UNet predicts the noise, or the velocity, of noisy latents from a sentence.

epsilon: Ho and others, arXiv 2006.11239. Velocity: Salimans and Ho, arXiv 2202.00512. Sentences are dropped at random,
so that the UNet learns to do without one too, which guidance needs (Ho and Salimans, arXiv 2207.12598).
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from producers.text_to_image.pairs import LatentPairs
from producers.text_to_image.sentences import encode_tokens

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline

MIN_WEIGHT = 0.1
"""Of a timestep in the loss. Sampling starts from noise without signal, whose ratio is 0: it must be learned too."""


@dataclass(frozen=True)
class DenoisingBatch:
    """n noisy latents with their sentences, on the device of the model."""

    latents: torch.Tensor
    """float32 [n, channels, height, width]."""
    noise: torch.Tensor
    """Standard normal, of the same shape."""
    timesteps: torch.Tensor
    """int64 [n], 0 to the number of training timesteps - 1."""
    input_ids: torch.Tensor
    """int64 [n, length]."""
    attention_mask: torch.Tensor
    """int64 [n, length]."""


class DenoisingModel(nn.Module):
    """Text encoder and UNet as one module, whose output is the loss; so that several processes can train it."""

    alphas: torch.Tensor

    loss_weights: torch.Tensor

    def __init__(self, pipeline: "StableDiffusionPipeline", *, snr_limit: float | None = None) -> None:
        """Wrap the models of a pipeline; training changes them in place.

        Args:
            pipeline: of Stable Diffusion's classes.
            snr_limit: weigh each timestep by its signal-to-noise ratio, at most this, as Hang and others do (Min-SNR,
                arXiv 2303.09556, 3.4 with the gamma 5); the weights have mean 1. None weighs all alike. What a sentence
                explains of very noisy latents is little: their errors are large whatever the model does.
        """
        super().__init__()
        self.text_encoder, self.unet = pipeline.text_encoder, pipeline.unet
        self.predicts_velocity = pipeline.scheduler.config.get("prediction_type", "epsilon") == "v_prediction"
        # Signal share of each timestep, the squared factor of the latents.
        self.register_buffer("alphas", pipeline.scheduler.alphas_cumprod.clone().float(), persistent=False)
        weights = compute_loss_weights(self.alphas, snr_limit, predicts_velocity=self.predicts_velocity)
        self.register_buffer("loss_weights", weights, persistent=False)

    def forward(self, batch: DenoisingBatch) -> torch.Tensor:
        """Return the mean weighted squared error of the prediction, a scalar."""
        signal = self.alphas[batch.timesteps].sqrt().view(-1, 1, 1, 1)
        noise_scale = (1 - self.alphas[batch.timesteps]).sqrt().view(-1, 1, 1, 1)
        noisy = signal * batch.latents + noise_scale * batch.noise
        states = encode_tokens(self.text_encoder, batch.input_ids, batch.attention_mask)
        prediction = self.unet(noisy, batch.timesteps, states).sample
        target = signal * batch.noise - noise_scale * batch.latents if self.predicts_velocity else batch.noise
        errors = functional.mse_loss(prediction.float(), target, reduction="none").mean(dim=(1, 2, 3))
        return (errors * self.loss_weights[batch.timesteps]).mean()


def compute_loss_weights(alphas: torch.Tensor, snr_limit: float | None, *, predicts_velocity: bool) -> torch.Tensor:
    """Return the weight of each timestep in the loss, float32 [timesteps], of mean 1.

    Args:
        alphas: signal share of each timestep, 0 to 1; the signal-to-noise ratio is alpha / (1 - alpha).
        snr_limit: largest ratio that counts; None gives equal weights.
        predicts_velocity: whether the model predicts velocities; else noise.
    """
    if snr_limit is None:
        return torch.ones_like(alphas)
    # The limit weighs errors of the latents; those of the noise are snr times as large, of the velocity snr + 1 times.
    ratio = alphas.double() / (1 - alphas.double())
    weights = ratio.clamp_max(snr_limit) / (ratio + 1 if predicts_velocity else ratio.clamp_min(1e-12))
    weights = (weights / weights.mean()).clamp_min(MIN_WEIGHT)
    return (weights / weights.mean()).float()


def make_batch(
    pairs: LatentPairs,
    rows: NDArray[np.int64],
    generator: torch.Generator,
    *,
    timesteps: int,
    caption_dropout: float,
    device: torch.device,
) -> DenoisingBatch:
    """Return the batch of some sentences. Everything random comes from the generator, so it repeats exactly.

    Args:
        pairs: the pairs.
        rows: sentences [n].
        generator: of the CPU; it is advanced.
        timesteps: number of training timesteps.
        caption_dropout: probability that a sentence is replaced by the empty one.
        device: where the batch is put.
    """
    latents = pairs.draw_latents(rows, generator)
    noise = torch.randn(latents.shape, generator=generator)
    times = torch.randint(timesteps, (len(rows),), generator=generator)
    dropped = torch.rand(len(rows), generator=generator) < caption_dropout
    index = torch.from_numpy(rows)
    ids = torch.where(dropped[:, None], pairs.empty.input_ids, pairs.tokens.input_ids[index])
    mask = torch.where(dropped[:, None], pairs.empty.attention_mask, pairs.tokens.attention_mask[index])
    parts: list[Any] = [part.to(device) for part in (latents, noise, times, ids, mask)]
    return DenoisingBatch(*parts)
