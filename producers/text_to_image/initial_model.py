"""A small text-to-image model with random weights, of the same classes as Stable Diffusion.

Pictures of 32 pixels become latents of 16 x 16 cells. The UNet attends to the sentence at 8 x 8 cells only: at 16 x 16,
attention takes more time than everything else together, and what a sentence asks for concerns whole regions.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline
    from transformers import CLIPTokenizer

TRAINING_TIMESTEPS = 1000


@dataclass(frozen=True)
class ModelSizes:
    """The sizes of a small model."""

    side: int = 32
    """Height and width of a picture, in pixels."""
    vae_channels: tuple[int, ...] = (32, 64)
    """One level each; every level but the first halves height and width."""
    latent_channels: int = 4
    unet_channels: tuple[int, ...] = (64, 128)
    """One level each, multiples of 16; all but the first attend to the sentence."""
    text_width: int = 128
    text_layers: int = 2
    text_length: int = 24
    """Tokens of a sentence, its two marks included."""
    vocabulary: int = 1000
    """Largest number of tokens; at least 514, all bytes within and at the end of a word."""

    @property
    def latent_side(self) -> int:
        """Height and width of the latents, in cells."""
        return self.side // 2 ** (len(self.vae_channels) - 1)


def build_pipeline(sentences: Sequence[str], sizes: ModelSizes, *, seed: int) -> "StableDiffusionPipeline":
    """Return a pipeline with random weights, and a tokenizer trained on the sentences.

    Args:
        sentences: what the tokenizer is trained on, in any language.
        sizes: of the model.
        seed: of the weights; torch's global generator is seeded with it.
    """
    from diffusers import StableDiffusionPipeline

    tokenizer = train_tokenizer(sentences, vocabulary=sizes.vocabulary, length=sizes.text_length)
    torch.manual_seed(seed)
    pipeline = StableDiffusionPipeline(
        vae=_build_vae(sizes),
        text_encoder=_build_text_encoder(tokenizer, sizes),
        tokenizer=tokenizer,
        unet=_build_unet(sizes),
        scheduler=build_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def train_tokenizer(sentences: Sequence[str], *, vocabulary: int, length: int) -> "CLIPTokenizer":
    """Return a byte-pair tokenizer of CLIP's class, whose merges are those of the sentences.

    Args:
        sentences: any texts; every byte is in the vocabulary, so no text is unknown.
        vocabulary: largest number of tokens.
        length: tokens of a sentence, its two marks included; longer ones are cut.
    """
    import json

    from tokenizers.pre_tokenizers import ByteLevel
    from tokenizers.trainers import BpeTrainer
    from transformers import CLIPTokenizer

    start, end = "<|startoftext|>", "<|endoftext|>"
    backend = CLIPTokenizer().backend_tokenizer
    alphabet = sorted(ByteLevel.alphabet())
    backend.train_from_iterator(
        sentences,
        BpeTrainer(
            vocab_size=vocabulary,
            special_tokens=[*alphabet, *(f"{letter}</w>" for letter in alphabet), start, end],
            initial_alphabet=alphabet,
            end_of_word_suffix="</w>",
            show_progress=False,
        ),
    )
    model: dict[str, Any] = json.loads(backend.to_str())["model"]
    merges = [tuple(pair) for pair in model["merges"]]
    return CLIPTokenizer(vocab=model["vocab"], merges=merges, model_max_length=length)


def build_scheduler() -> Any:
    """Return the noise levels of training and sampling: velocity, and pure noise at the last level.

    Without a last level of pure noise, the mean colour of the noise leaks into training, and plain backgrounds come out
    wrong (Lin et al., arXiv 2305.08891).
    """
    from diffusers import DDIMScheduler

    return DDIMScheduler(
        num_train_timesteps=TRAINING_TIMESTEPS,
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        clip_sample=False,
        set_alpha_to_one=True,
        steps_offset=1,
    )


def _build_vae(sizes: ModelSizes) -> Any:
    from diffusers import AutoencoderKL

    levels = len(sizes.vae_channels)
    return AutoencoderKL(
        latent_channels=sizes.latent_channels,
        block_out_channels=sizes.vae_channels,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        layers_per_block=1,
        norm_num_groups=1,  # many small groups take half of the time on a CPU
        mid_block_add_attention=False,
        sample_size=sizes.side,
    )


def _build_unet(sizes: ModelSizes) -> Any:
    from diffusers import UNet2DConditionModel

    attending = len(sizes.unet_channels) - 1
    return UNet2DConditionModel(
        sample_size=sizes.latent_side,
        in_channels=sizes.latent_channels,
        out_channels=sizes.latent_channels,
        block_out_channels=sizes.unet_channels,
        down_block_types=("DownBlock2D", *("CrossAttnDownBlock2D",) * attending),
        up_block_types=(*("CrossAttnUpBlock2D",) * attending, "UpBlock2D"),
        layers_per_block=1,
        cross_attention_dim=sizes.text_width,
        attention_head_dim=4,  # diffusers reads it as the number of heads
        norm_num_groups=4,
    )


def _build_text_encoder(tokenizer: Any, sizes: ModelSizes) -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel

    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=sizes.text_width,
            intermediate_size=2 * sizes.text_width,
            num_hidden_layers=sizes.text_layers,
            num_attention_heads=4,
            max_position_embeddings=sizes.text_length,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
