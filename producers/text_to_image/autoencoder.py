"""Train the small model's VAE: pictures to latents and back (Kingma and Welling, arXiv 1312.6114).

Most steps see random crops: a step on a quarter of the pixels is four times as fast, and the network is convolutional.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from producers.text_to_image.pairs import ENCODED_AT_ONCE, encode_latents, scale_pixels
from producers.text_to_image.training_loop import TrainingContext, TrainingResult, TrainingSettings, run_training

WHOLE_SHARE = 0.25
"""Share of the steps on whole pictures, a quarter as many: so the normalization also learns from whole pictures."""
KL_WEIGHT = 1e-4
"""Weight of the mean divergence of a latent number from the standard normal, in nats."""


class AutoencoderLoss(nn.Module):
    """A VAE as a module whose output is its loss."""

    def __init__(self, vae: nn.Module) -> None:
        """Wrap an AutoencoderKL; training changes it in place."""
        super().__init__()
        self.vae: Any = vae

    def forward(self, pixels: torch.Tensor, seed: int) -> torch.Tensor:
        """Return the loss of pixels [n, 3, height, width], -1 to 1; the noise of the latents follows from the seed.

        The loss adds up squared and absolute errors of pixels, errors of edges (patterns are edges), errors of means of
        4 x 4 pixels (colours are learned late otherwise), and the divergence of the latents.
        """
        latents = self.vae.encode(pixels).latent_dist
        noise = torch.randn(latents.mean.shape, generator=torch.Generator("cpu").manual_seed(seed))
        decoded = self.vae.decode(latents.mean + latents.std * noise.to(latents.mean)).sample
        error = decoded.float() - pixels
        edges = error.diff(dim=2).abs().mean() + error.diff(dim=3).abs().mean()
        colours = functional.avg_pool2d(error, 4).abs().mean()
        divergence = latents.kl().float().mean() / latents.mean[0].numel()
        return 2 * error.square().mean() + error.abs().mean() + 0.5 * edges + colours + KL_WEIGHT * divergence


def train_autoencoder(
    vae: Any,
    pixels: NDArray[np.uint8],
    settings: TrainingSettings,
    context: TrainingContext,
) -> TrainingResult:
    """Train a VAE in place, and then give its latents mean 0 and variance 1 in each channel.

    Args:
        vae: an AutoencoderKL on `device`.
        pixels: uint8 [n, side, side, 3].
        settings: `batch` counts crops of half the side.
        context: processes, device and folder.
    """
    side = pixels.shape[1]
    crop = side // 2

    def compute_loss(model: Any, rows: NDArray[np.int64], generator: torch.Generator) -> torch.Tensor:
        draw = torch.randint(2**31, (2 + 2 * len(rows),), generator=generator).numpy()
        if draw[0] / 2**31 < WHOLE_SHARE:
            part = pixels[rows[: max(1, len(rows) // 4)]]
        else:
            corners = draw[2:].reshape(-1, 2) % (side - crop + 1)
            part = np.stack(
                [pixels[row, y : y + crop, x : x + crop] for row, (y, x) in zip(rows, corners, strict=True)]
            )
        batch = scale_pixels(part).to(context.device, memory_format=torch.channels_last)
        loss: torch.Tensor = model(batch, int(draw[1]))
        return loss

    vae.requires_grad_(True).train().to(memory_format=torch.channels_last)
    result = run_training(
        AutoencoderLoss(vae),
        len(pixels),
        compute_loss,
        settings,
        context,
    )
    vae.requires_grad_(False).eval()
    standardize_latents(vae, pixels[: 64 * ENCODED_AT_ONCE])
    return result


def standardize_latents(vae: Any, pixels: NDArray[np.uint8]) -> None:
    """Change a VAE so that its latents have mean 0 and variance 1 in each channel; what it decodes stays the same.

    The last convolution of the encoder and the first of the decoder are of size 1, and take the change. Diffusion
    assumes latents of variance 1; its scaling factor alone cannot set that for each channel.

    Args:
        vae: an AutoencoderKL with `quant_conv` and `post_quant_conv`; its scaling factor becomes 1.
        pixels: pictures that the moments are measured on, uint8 [n, side, side, 3].
    """
    mean, log_variance = torch.from_numpy(encode_latents(vae, pixels).astype(np.float32)).chunk(2, dim=1)
    dimensions = (0, 2, 3)
    offset = mean.mean(dimensions)
    scale = (mean.var(dimensions) + log_variance.exp().mean(dimensions)).sqrt()
    channels = len(scale)
    offset, scale = offset.to(vae.device), scale.to(vae.device)
    with torch.no_grad():
        weight, bias = vae.quant_conv.weight, vae.quant_conv.bias
        weight[:channels] /= scale.view(-1, 1, 1, 1)
        bias[:channels] = (bias[:channels] - offset) / scale
        bias[channels:] -= 2 * scale.log()
        weight, bias = vae.post_quant_conv.weight, vae.post_quant_conv.bias
        bias += weight[:, :, 0, 0] @ offset
        weight *= scale.view(1, -1, 1, 1)
    vae.register_to_config(scaling_factor=1.0)
