"""Train the last layers of a tower from pixels or tokens, after the heads.

The order follows Kumar et al. 2022 ("Fine-Tuning can Distort Pretrained Features and Underperform Out-of-Distribution",
ICLR). A layer learns more slowly the earlier it is. After each pass the validation products are ranked, and the weights
of the best pass are kept: those from before the first pass if none was better. Batch normalizations keep their
statistics.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from feature_repo.errors import InvalidInputError
from feature_repo.images.decoding import Source
from producers.encoders.assembled.encoder import AssembledEncoder
from producers.encoders.assembled.heads import MIN_TITLES, draw_validation
from producers.encoders.assembled.learner import MAX_SCALE, HeadData
from producers.encoders.assembled.model import AssembledModel
from producers.encoders.recall import rank_right_images
from producers.encoders.tokens import tokenize
from producers.encoders.training.contrastive import contrastive_loss
from producers.encoders.training.images import decode_images, remove_pixel_files
from producers.encoders.training.process_group import ProcessGroup

PASSES, PATIENCE = 8, 2
"""Passes over the products at most, and how many without a better validation end the training."""
BATCH = 64
"""Products in a step."""
HEAD_RATE, TOWER_RATE, LAYER_DECAY = 2e-4, 1e-4, 0.7
"""Learning rate of the heads, of the last layer of a tower, and the factor from each layer to the one before it."""
WEIGHT_DECAY = 0.05

Encode = Callable[[NDArray[np.int64]], torch.Tensor]
"""Outputs [n, width] of a tower for some rows; with gradients if it is unlocked."""


@dataclass(frozen=True)
class UnlockReport:
    """How a training of last layers went."""

    passes: int
    """Passes up to the best validation; 0 if the towers were left as they are."""
    before: float
    """Mean of 1 / rank of a title's own image among those of the validation products, before the first pass."""
    after: float
    """The same of the weights that are kept."""

    def __str__(self) -> str:
        if not self.passes:
            return f"the last layers stay as they are: no pass over the products raised the rank of {self.before:.3f}"
        return (
            f"last layers trained in {self.passes} passes, mean reciprocal rank {self.before:.3f} to {self.after:.3f}"
        )


def unlock_towers(
    model: AssembledModel,
    make_encoder: Callable[[], AssembledEncoder],
    data: HeadData,
    titles: Sequence[str],
    images: Sequence[Source],
    folder: Path,
    *,
    image_layers: int,
    text_layers: int,
    seed: int,
    progress: Callable[[str, int, int], None],
) -> tuple[HeadData, UnlockReport]:
    """Train the last layers of the towers of a model in place, and encode the products again.

    Args:
        model: its heads are trained without the validation products.
        make_encoder: returns an encoder with a copy of the model as it is at the call.
        data: the products, with the outputs of the towers as they are now.
        titles: title of each product [n].
        images: path or bytes of each product's image [n].
        folder: where pixels that do not fit in memory are written; they are removed at the end.
        image_layers: last layers of the image tower to train; 0 keeps it locked.
        text_layers: the same of the text tower.
        seed: of the order of the products, and of `draw_validation`.
        progress: called with what is being done, how much of it is done, and how much there is.

    Returns:
        The products with the outputs of the changed towers, and how the training went.

    Raises:
        InvalidInputError: there are too few titles to validate on, or an image can no longer be read.
    """
    encoder = make_encoder()
    device = encoder.device
    pixels = None
    if image_layers:
        assert encoder.geometry is not None
        pixels, usable = decode_images(
            images, encoder.geometry, folder, ProcessGroup(1, 0), lambda d, t: progress("decode images", d, t)
        )
        if not usable.all():
            raise InvalidInputError(
                f"{int((~usable).sum())} images whose outputs are kept cannot be read now; restore them, or keep the "
                "image tower locked"
            )
    tokens = tokenize(encoder.tokenizer, titles, encoder.text_length)

    def encode_images(rows: NDArray[np.int64]) -> torch.Tensor:
        assert pixels is not None
        values = encoder.prepare_pixels(torch.from_numpy(pixels[rows]).to(device)).float()
        return model.get_image_outputs(values)

    def encode_texts(rows: NDArray[np.int64]) -> torch.Tensor:
        ids, mask = tokens.pad(rows, encoder.tokenizer.pad_token_id)
        return model.get_text_outputs(torch.from_numpy(ids).to(device), torch.from_numpy(mask).to(device))

    model.to(device)
    report = train_last_layers(
        model,
        data,
        image_layers=image_layers,
        text_layers=text_layers,
        encode_images=encode_images,
        encode_texts=encode_texts,
        seed=seed,
        progress=lambda done, total: progress("train towers", done, total),
    )
    model.to("cpu")
    changed = make_encoder()
    if pixels is not None:
        data = replace(data, image=changed.encode_pixel_outputs(pixels))
        remove_pixel_files(folder)
    if text_layers:
        data = replace(data, text=changed.encode_text_outputs(titles))
    return data, report


def check_layers(tower: nn.Module, count: int, name: str) -> None:
    """Raise InvalidInputError if a tower has fewer than `count` layers, or none that can be told apart."""
    layers = len(list_layers(tower))
    if count > layers:
        raise InvalidInputError(f"--unlock-last is {count}, and the tower `{name}` has {layers} layers; give fewer")


def list_layers(tower: nn.Module) -> list[list[nn.Parameter]]:
    """Return the parameters of each layer of a tower, the first layer first; what follows the layers is of the last.

    A layer is an entry of the outermost list of modules: a block of a transformer or an EfficientNet, a stage of a
    ResNet or a ConvNeXt. What comes before, such as embeddings, is of no layer.

    Args:
        tower: an ImageTower or a TextTower.
    """
    lists = [
        (name.count("."), number, module)
        for number, (name, module) in enumerate(tower.named_modules())
        if isinstance(module, nn.ModuleList) and len(module) > 1
    ]
    if not lists:
        return []
    layers = [list(layer.parameters()) for layer in min(lists)[2]]
    order = {id(parameter): number for number, parameter in enumerate(tower.parameters())}
    last = max(order[id(parameter)] for parameter in layers[-1])
    layers[-1] += [parameter for parameter in tower.parameters() if order[id(parameter)] > last]
    return layers


def train_last_layers(
    model: AssembledModel,
    data: HeadData,
    *,
    image_layers: int,
    text_layers: int,
    encode_images: Encode,
    encode_texts: Encode,
    seed: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> UnlockReport:
    """Train the heads and the last layers of the towers of a model in place.

    Args:
        model: its heads are trained on all products but those of `draw_validation` with this seed.
        data: outputs of the towers as they are now; those of a tower that stays locked are used.
        image_layers: last layers of the image tower to train; 0 keeps it locked.
        text_layers: the same of the text tower.
        encode_images: the image tower's outputs of the images of some rows; called if it is unlocked.
        encode_texts: the text tower's outputs of the titles of some rows; called if it is unlocked.
        seed: of the order and the validation products.
        progress: called with the steps done and the steps planned.

    Raises:
        InvalidInputError: there are too few titles to validate on.
    """
    validation = draw_validation(data.title_ids, seed)
    if not len(validation):
        raise InvalidInputError(
            f"layers of a tower are trained on shops of {MIN_TITLES} different titles or more; keep the towers locked"
        )
    rows = np.setdiff1d(np.arange(len(data.title_ids)), validation)
    device = model.logit_scale.device

    def encode(part: NDArray[np.int64]) -> tuple[torch.Tensor, torch.Tensor]:
        image = encode_images(part) if image_layers else to_tensor(data.image[part], device)
        text = None
        if data.text is not None:
            text = encode_texts(part) if text_layers else to_tensor(data.text[part], device)
        words = torch.from_numpy(data.words[part]).to(device)
        return functional.normalize(model.image_head(image)), functional.normalize(model.join_text(words, text))

    def validate() -> float:
        with torch.inference_mode():
            parts = [encode(part) for part in np.array_split(validation, -(-len(validation) // BATCH))]
        image, text = (torch.cat(each).cpu().numpy() for each in zip(*parts, strict=True))
        return float((1 / (1 + rank_right_images(text @ image.T, data.title_ids[validation]))).mean())

    groups = group_parameters(model, image_layers, text_layers)
    trained = [parameter for group in groups for parameter in group["params"]]
    model.requires_grad_(False).eval()
    for parameter in trained:
        parameter.requires_grad_(True)
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.98))
    per_pass = max(1, len(rows) // BATCH)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / per_pass))
    before = best = validate()
    best_pass, best_state = 0, [parameter.detach().clone() for parameter in trained]
    rng = np.random.default_rng(seed)
    for number in range(1, PASSES + 1):
        for step, part in enumerate(np.array_split(rng.permutation(rows), per_pass)):
            image, text = encode(part)
            title_ids = torch.from_numpy(data.title_ids[part]).to(device)
            loss = contrastive_loss(image, text, title_ids, model.logit_scale.exp().clamp(max=MAX_SCALE))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            progress((number - 1) * per_pass + step + 1, PASSES * per_pass)
        rank = validate()
        if rank > best:
            best, best_pass = rank, number
            best_state = [parameter.detach().clone() for parameter in trained]
        if number - best_pass >= PATIENCE:
            break
    with torch.no_grad():
        for parameter, kept in zip(trained, best_state, strict=True):
            parameter.copy_(kept)
    return UnlockReport(best_pass, before, best)


def group_parameters(model: AssembledModel, image_layers: int, text_layers: int) -> list[dict[str, Any]]:
    """Return the parameters to train with their learning rates, as an optimizer of torch takes them."""
    heads = [*model.image_head.parameters(), *model.words.parameters(), model.logit_scale]
    towers: list[tuple[nn.Module, int]] = [(model.image_tower, image_layers)]
    if model.has_text_tower:
        heads += model.text_head.parameters()
        towers.append((model.text_tower, text_layers))
    groups = [{"params": heads, "lr": HEAD_RATE, "weight_decay": 0.0}]
    for tower, count in towers:
        for distance, layer in enumerate(reversed(list_layers(tower)[-count:] if count else [])):
            rate = TOWER_RATE * LAYER_DECAY**distance
            groups.append({"params": layer, "lr": rate, "weight_decay": WEIGHT_DECAY})
    return groups


def to_tensor(outputs: NDArray[np.float16], device: torch.device) -> torch.Tensor:
    """Return outputs of a tower as float32 on a device."""
    return torch.from_numpy(outputs.astype(np.float32)).to(device)
