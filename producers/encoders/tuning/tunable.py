"""A checkpoint in the parts that tuning needs: outputs of its frozen towers, heads that are trained, how to save it.

Only the direction of a vector counts, so heads are scaled to outputs of about one size before they are trained, which
makes one learning rate fit all encoders.
"""

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from torch import nn
from torch.nn import functional

from feature_repo.errors import InvalidInputError, VitrineError
from feature_repo.fusion import Space
from producers.encoders import checkpoint_files, whitening
from producers.encoders.assembled.assemble import AssembledParts, save_checkpoint
from producers.encoders.assembled.encoder import AssembledEncoder, hash_tower
from producers.encoders.assembled.model import AssembledModel
from producers.encoders.assembled.tokenizer import WORDS_LENGTH
from producers.encoders.checkpoint import load
from producers.encoders.checkpoint_version import resolve_checkpoint
from producers.encoders.clip_family import FAMILIES, DualEncoder
from producers.encoders.encoder import Outputs, Pixels
from producers.encoders.runtime import choose_runtime
from producers.encoders.texture import Texture
from producers.encoders.tiny_clip import SmallConfig, SmallModel
from producers.encoders.tokens import Tokens, tokenize
from producers.encoders.training import language

PROJECTED = ("clip", "chinese_clip", "vision-text-dual-encoder", SmallConfig.model_type)
"""Families whose towers end in `visual_projection` and `text_projection`."""
Rows = NDArray[np.int64]


@dataclass(frozen=True)
class TextInputs:
    """n texts as the heads read them."""

    tokens: Tokens
    outputs: Outputs
    """Outputs of the frozen text tower, float16 [n, width]; [n, 0] where the tower is trained, or there is none."""

    def __len__(self) -> int:
        return len(self.tokens)

    def select(self, rows: Rows) -> "TextInputs":
        """Return some of the texts."""
        ids, starts = self.tokens.ids, self.tokens.starts
        parts = [ids[starts[row] : starts[row + 1]] for row in rows]
        lengths = self.tokens.lengths[rows]
        tokens = Tokens(np.concatenate([ids[:0], *parts]), np.concatenate([[0], np.cumsum(lengths)]))
        return TextInputs(tokens, self.outputs[rows])


class TunableEncoder(Protocol):
    """What the training loop needs of an encoder."""

    module: nn.Module
    """Everything that is trained, and no other weight that needs a gradient."""
    version: str
    """Encoder version of the checkpoint."""
    dim: int
    """Width of a vector."""
    geometry: Any
    """How images are resized, a `Geometry`."""
    lacks_texture: bool
    """Whether `add_texture` gives the encoder something that it lacks."""
    frozen: Any
    """An encoder with `encode_pixel_outputs` and `encode_text_outputs`, as `TowerEncoder` describes."""

    def prepare_texts(self, texts: Sequence[str], outputs: Outputs) -> TextInputs:
        """Return texts with the outputs of the frozen text tower of them."""

    def encode_images(self, outputs: torch.Tensor) -> torch.Tensor:
        """Return unit vectors [n, dim] of outputs of the image tower [n, width]."""

    def encode_texts(self, inputs: TextInputs, rows: Rows) -> torch.Tensor:
        """Return unit vectors [rows, dim] of some texts."""

    def add_texture(self, dictionary: Any, noise: float, pixels: Pixels) -> None:
        """Let the encoder see texture, as in `ProjectedEncoder`."""

    def rescale(self, images: torch.Tensor, texts: TextInputs) -> None:
        """Scale the heads to outputs of about one size, for these images and texts; directions stay the same."""

    def save(self, space: Space | None, folder: Path) -> None:
        """Write the checkpoint."""


def open_tunable(checkpoint: str, *, trains_small_text: bool) -> TunableEncoder:
    """Open a checkpoint on the CPU.

    Args:
        checkpoint: directory or hub name.
        trains_small_text: whether the text tower of the small encoder is trained, whose one layer is cheap.

    Raises:
        VitrineError: the checkpoint does not exist or cannot be read.
        InvalidInputError: it is of another kind than the small encoder, CLIP, Chinese-CLIP, a VisionTextDualEncoder or
            an assembled encoder, or its images need more than resizing and cropping.
    """
    encoder = load(checkpoint, device="cpu", is_compiled=False)
    family = checkpoint_files.read_json(resolve_checkpoint(checkpoint) / "config.json").get("model_type")
    if isinstance(encoder, AssembledEncoder):
        return AssembledHeads(encoder, resolve_checkpoint(checkpoint))
    if not isinstance(encoder, DualEncoder) or family not in PROJECTED or encoder.geometry is None:
        raise InvalidInputError(
            f"{checkpoint}: an encoder of kind {family!r} cannot be tuned; expected one of `produce encoder`, CLIP or "
            "Chinese-CLIP, or train heads for its towers first: produce encoder --image-tower"
        )
    is_small = family == SmallConfig.model_type
    return ProjectedEncoder(encoder, family, resolve_checkpoint(checkpoint), trains_text=is_small and trains_small_text)


class FrozenTowers(DualEncoder):
    """The towers of a model without their projections. Outputs have a mean square of 1."""

    def __init__(self, model: Any, encoder: DualEncoder, family: str, *, has_text: bool) -> None:
        """Copy a model of one of PROJECTED; `has_text` is False if its text tower is not frozen."""
        bare = copy.deepcopy(model)
        self.image_width = int(bare.visual_projection.in_features)
        self.text_width = int(bare.text_projection.in_features) if has_text else 0
        bare.visual_projection, bare.text_projection = nn.Identity(), nn.Identity()
        digest = hash_tower(bare, [encoder.processor.to_dict()])
        self.image_fingerprint, self.text_fingerprint = digest, digest if has_text else None
        runtime = choose_runtime("cpu", None, False)
        super().__init__(
            bare, encoder.tokenizer, encoder.processor, family=family, version=encoder.version, runtime=runtime
        )

    def encode_pixel_outputs(self, pixels: Pixels) -> Outputs:
        """Return outputs float16 [n, image_width] of resized images."""
        if not len(pixels):
            return np.empty((0, self.image_width), np.float16)
        return (self.encode_pixels(pixels) * math.sqrt(self.image_width)).astype(np.float16)

    def encode_text_outputs(self, texts: Sequence[str]) -> Outputs:
        """Return outputs float16 [n, text_width] of texts; [n, 0] where the text tower is not frozen."""
        if not texts or not self.text_width:
            return np.empty((len(texts), self.text_width), np.float16)
        return (self.encode_texts(texts) * math.sqrt(self.text_width)).astype(np.float16)


class ProjectedEncoder:
    """A model whose projections are trained, and perhaps the text tower."""

    def __init__(self, encoder: DualEncoder, family: str, folder: Path, *, trains_text: bool) -> None:
        """Read the model of an opened checkpoint again, as it was before it was optimized for inference."""
        self.version, self.dim = encoder.version, encoder.dim
        self.geometry, self._encoder, self._family, self._folder = encoder.geometry, encoder, family, folder
        self.model: Any = checkpoint_files.read_model(FAMILIES[family], folder)
        self.lacks_texture = family == SmallConfig.model_type and self.model.texture is None
        self._trains_text = trains_text
        self._freeze()

    def add_texture(self, dictionary: Any, noise: float, pixels: Pixels) -> None:
        """Let the small encoder see texture; its vectors stay the same until it is trained.

        Args:
            dictionary: a `producers.index.texture.TextureDictionary`, learned from `pixels`.
            noise: added to the variance of a patch by it.
            pixels: resized images of the shop, uint8 [n, height, width, 3].
        """
        entries, patch = len(dictionary.entries), math.isqrt(dictionary.entries.shape[1])
        old = self.model
        settings = {"entries": entries, "patch": patch, "noise": noise}
        model = SmallModel(SmallConfig(old.config.vision, old.config.text, old.config.projection_dim, settings)).eval()
        texture = model.texture
        assert isinstance(texture, Texture)
        weights = old.state_dict()
        projection = weights.pop("visual_projection.weight")
        model.load_state_dict(weights, strict=False)
        with torch.no_grad():
            model.visual_projection.weight.zero_()
            model.visual_projection.weight[:, : projection.shape[1]] = projection
            texture.set_dictionary(dictionary.mean, dictionary.whitening, dictionary.entries)
            parts = np.array_split(pixels, -(-len(pixels) // 64))
            values = [torch.from_numpy(part).permute(0, 3, 1, 2).float() / 127.5 - 1 for part in parts]
            texture.fit_scale(torch.cat([texture(each) for each in values]))
        self.model, self.lacks_texture = model, False
        self._freeze()

    def _freeze(self) -> None:
        self.frozen = FrozenTowers(self.model, self._encoder, self._family, has_text=not self._trains_text)
        self.model.eval().requires_grad_(False)
        trained: list[nn.Module] = [self.model.visual_projection, self.model.text_projection]
        if self._trains_text:
            trained.append(self.model.text_model)
        self.module: nn.Module = nn.ModuleList(trained).requires_grad_(True)

    def prepare_texts(self, texts: Sequence[str], outputs: Outputs) -> TextInputs:
        """Return texts with the outputs of the frozen text tower of them."""
        return TextInputs(tokenize(self._encoder.tokenizer, texts, self._encoder.text_length), outputs)

    def encode_images(self, outputs: torch.Tensor) -> torch.Tensor:
        """Return unit vectors [n, dim] of outputs of the image tower [n, width]."""
        return functional.normalize(self.model.visual_projection(outputs))

    def encode_texts(self, inputs: TextInputs, rows: Rows) -> torch.Tensor:
        """Return unit vectors [rows, dim] of some texts."""
        if not self._trains_text:
            return functional.normalize(self.model.text_projection(to_float(inputs.outputs[rows])))
        ids, mask = inputs.tokens.pad(rows, self._encoder.tokenizer.pad_token_id)
        features = self.model.get_text_features(torch.from_numpy(ids), torch.from_numpy(mask))
        return functional.normalize(features.pooler_output)

    def rescale(self, images: torch.Tensor, texts: TextInputs) -> None:
        """Scale the projections so that vectors of these images and texts have about the length 1 for each value."""
        rows = np.arange(min(len(texts), len(images)))
        with torch.no_grad():
            projection = self.model.text_projection
            features: list[torch.Tensor] = []
            hook = projection.register_forward_hook(lambda _, __, output: features.append(output))
            self.encode_texts(texts, rows)
            hook.remove()
            projection.weight /= features[0].square().mean().sqrt()
            output = self.model.visual_projection(images)
            self.model.visual_projection.weight /= output.square().mean().sqrt()

    def save(self, space: Space | None, folder: Path) -> None:
        """Write the checkpoint, with the language head: it reads the image tower's tokens, which are as they were."""
        try:
            folder.mkdir(parents=True, exist_ok=True)
            language.copy_head(self._folder, folder)
            for part in (self.model, self._encoder.tokenizer, self._encoder.processor):
                part.save_pretrained(folder)
            whitening.save_space(space, folder)
        except (SafetensorError, OSError) as error:
            raise VitrineError(f"{folder}: the checkpoint cannot be written ({error}); free disk space") from error


class AssembledHeads:
    """The heads and words of an assembled encoder."""

    lacks_texture = False

    def __init__(self, encoder: AssembledEncoder, folder: Path) -> None:
        """Read the model of an opened checkpoint again, as it was before it was optimized for inference."""
        self.version, self.dim, self.frozen, self.geometry = encoder.version, encoder.dim, encoder, encoder.geometry
        self.model: Any = checkpoint_files.read_model(AssembledModel, folder)
        self._parts = AssembledParts(self.model, encoder.tokenizer, encoder.processor)
        self.model.eval().requires_grad_(False)
        trained: list[nn.Module] = [self.model.image_head, self.model.words]
        if self.model.has_text_tower:
            trained.append(self.model.text_head)
        self.module: nn.Module = nn.ModuleList(trained).requires_grad_(True)

    def prepare_texts(self, texts: Sequence[str], outputs: Outputs) -> TextInputs:
        """Return texts with the outputs of the frozen text tower of them."""
        words = self._parts.tokenizer.encode_words(texts)
        starts = np.arange(len(texts) + 1, dtype=np.int64) * WORDS_LENGTH
        return TextInputs(Tokens(words.ravel(), starts), outputs)

    def encode_images(self, outputs: torch.Tensor) -> torch.Tensor:
        """Return unit vectors [n, dim] of outputs of the image tower [n, width]."""
        return functional.normalize(self.model.image_head(outputs))

    def encode_texts(self, inputs: TextInputs, rows: Rows) -> torch.Tensor:
        """Return unit vectors [rows, dim] of some texts."""
        words = torch.from_numpy(inputs.tokens.ids.reshape(-1, WORDS_LENGTH)[rows])
        outputs = to_float(inputs.outputs[rows]) if self.model.has_text_tower else None
        return functional.normalize(self.model.join_text(words, outputs))

    def add_texture(self, dictionary: Any, noise: float, pixels: Pixels) -> None:
        """Do nothing: a pretrained tower sees texture."""

    def rescale(self, images: torch.Tensor, texts: TextInputs) -> None:
        """Do nothing: `produce encoder` has trained heads and words at one learning rate."""

    def save(self, space: Space | None, folder: Path) -> None:
        """Write the checkpoint."""
        save_checkpoint(self._parts, space, folder)


def to_float(outputs: Outputs) -> torch.Tensor:
    """Return outputs of a tower as float32."""
    return torch.from_numpy(outputs.astype(np.float32))
