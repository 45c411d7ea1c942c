"""Assemble an encoder: open the towers, encode the products that are not kept yet, train the heads, save.

with open_outputs(folder) as store:
    summary = assemble(titles, images, out, store, image_tower="efficientnet-lite0", text_tower="minilm", ...)
"""

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError

from feature_repo.content_hash import content_hash
from feature_repo.errors import InvalidInputError, VitrineError
from feature_repo.fusion import SAME_PRODUCT, Space, fuse
from feature_repo.images.decoding import Source, UnusableImageError, read_bytes
from feature_repo.images.read_ahead import read_ahead
from producers.encoders import tiny_clip, whitening
from producers.encoders.assembled import towers
from producers.encoders.assembled.encoder import AssembledEncoder
from producers.encoders.assembled.heads import HeadReport, train_heads
from producers.encoders.assembled.learner import HeadData
from producers.encoders.assembled.model import AssembledConfig, AssembledModel
from producers.encoders.assembled.tokenizer import TEXT_FOLDER, WORDS_FOLDER, PairTokenizer
from producers.encoders.assembled.unlock import UnlockReport, check_layers, unlock_towers
from producers.encoders.checkpoint_files import VOCABULARIES
from producers.encoders.encoder import KeptOutputs, Outputs
from producers.encoders.image_loader import decode_batches, open_decoding_pool
from producers.encoders.runtime import choose_runtime
from producers.encoders.training import language
from producers.encoders.training.alignment import ClickArrays

IMAGE, TITLE = b"i", b"t"
MAX_PRODUCTS = 100_000
"""Products that the heads are trained on at most, so that their outputs fit in memory; taken at equal distances."""
CHUNK = 1024
"""Images or titles that are encoded between two writes to the store."""
HIDDEN = 256
"""Width of the hidden layer of heads of kind "mlp"."""
HEADS = ("linear", "mlp")


@dataclass(frozen=True)
class AssemblySummary:
    """What an encoder was assembled of, and how its heads were trained."""

    image_tower: str
    """Name of the image tower and its fingerprint, joined by @."""
    text_tower: str
    """The same of the text tower; `none` without one."""
    pairs: int
    """Products with a title and a usable image that the heads were trained on, those of the validation included."""
    left_out: int
    """Products that were passed, but have no usable image, or no output."""
    images_encoded: int
    """Images that the image tower encoded; the outputs of the others were kept."""
    titles_encoded: int
    """Titles that the text tower encoded."""
    heads: HeadReport
    unlocked: UnlockReport | None
    """How the training of the towers' last layers went; None if they are locked."""
    has_preferences: bool | None
    """Whether the fused space has preference whitening; None without clicks."""

    def __str__(self) -> str:
        heads = self.heads
        quality = (
            f"on {heads.validation:,} validation products a title's own image has mean reciprocal rank "
            f"{heads.reciprocal_rank:.3f}"
            if heads.validation
            else "too few products to validate on"
        )
        lines = [
            f"image tower {self.image_tower}, text tower {self.text_tower}, and the words of the shop",
            f"{self.images_encoded:,} images and {self.titles_encoded:,} titles encoded by the towers, the outputs of "
            "the others were kept",
            f"heads trained on {self.pairs:,} products, {heads.steps:,} of {heads.planned:,} steps; {quality}; "
            f"{self.left_out:,} products left out, without a title or a usable image",
        ]
        if self.unlocked is not None:
            lines.append(str(self.unlocked))
        if self.has_preferences is not None:
            lines.append(whitening.describe_preferences(self.has_preferences))
        return "\n".join(lines)


def assemble(
    titles: Sequence[str],
    images: Sequence[Source],
    folder: Path,
    store: KeptOutputs,
    *,
    image_tower: str,
    text_tower: str,
    head: str,
    dim: int,
    seed: int,
    progress: Callable[[str, int, int], None],
    clicked: ClickArrays | None = None,
    image_layers: int = 0,
    text_layers: int = 0,
) -> AssemblySummary:
    """Assemble an encoder and write it as a checkpoint that `load` opens.

    Args:
        titles: title of each product [n]; repeats are allowed.
        images: path or bytes of each title's image [n]; products with an unusable image are left out and counted.
        folder: where the checkpoint goes; created if it does not exist. A checkpoint in it is replaced.
        store: outputs of towers that were kept; those that are missing are added.
        image_tower: as in `towers.open_image_tower`.
        text_tower: as in `towers.open_text_tower`, or `none`.
        head: one of HEADS.
        dim: width of the vectors.
        seed: of everything random.
        progress: called with what is being done, how much of it is done, and how much there is.
        clicked: clicks for the preference whitening; their `product_rows` are positions in `titles`.
        image_layers: last layers of the image tower that are trained after the heads; 0 leaves the tower as it is.
        text_layers: the same of the text tower.

    Raises:
        InvalidInputError: fewer than two products are usable, or too few to train layers of a tower; or a tower has
            fewer layers than are to be trained.
        EncoderMismatchError: outputs of another tower of the same name are kept.
        VitrineError: a tower cannot be opened, or the checkpoint cannot be written.
    """
    sample = np.linspace(0, len(titles) - 1, min(len(titles), MAX_PRODUCTS)).astype(np.int64)
    torch.manual_seed(seed)
    parts = open_parts(
        [titles[row] for row in sample], image_tower=image_tower, text_tower=text_tower, head=head, dim=dim
    )
    if image_layers:
        check_layers(parts.model.image_tower, image_layers, image_tower)
    if text_layers:
        check_layers(parts.model.text_tower, text_layers, text_tower)
    encoder = parts.make_encoder()
    store.check_name(IMAGE, image_tower, encoder.image_fingerprint)
    if encoder.text_fingerprint:
        store.check_name(TITLE, text_tower, encoder.text_fingerprint)
    image_outputs, images_encoded = encode_images(
        [images[row] for row in sample], encoder, store, lambda done, total: progress("encode images", done, total)
    )
    text_outputs, titles_encoded = encode_titles(
        [titles[row] for row in sample], encoder, store, lambda done, total: progress("encode titles", done, total)
    )
    usable = np.isfinite(image_outputs).all(axis=1) & np.isfinite(text_outputs).all(axis=1)
    kept = sample[usable]
    if len(kept) < 2:
        raise InvalidInputError(
            f"{len(kept)} of {len(titles)} products have a title and a usable image; at least 2 are needed"
        )
    kept_titles = [titles[row] for row in kept]
    data = HeadData(
        image_outputs[usable],
        text_outputs[usable] if encoder.text_fingerprint else None,
        encoder.tokenizer.encode_words(kept_titles),
        np.unique(np.array(kept_titles), return_inverse=True)[1],
    )
    report = train_heads(
        parts.model,
        data,
        seed=seed,
        is_refitted=not (image_layers or text_layers),
        progress=lambda done, total: progress("train heads", done, total),
    )
    unlocked = None
    if image_layers or text_layers:
        data, unlocked = unlock_towers(
            parts.model,
            parts.make_encoder,
            data,
            kept_titles,
            [images[row] for row in kept],
            folder,
            image_layers=image_layers,
            text_layers=text_layers,
            seed=seed,
            progress=progress,
        )
    trained = parts.make_encoder()
    texts = data.text if data.text is not None else np.empty((len(kept), 0), np.float16)
    vectors = trained.project_images(data.image), trained.project_texts(kept_titles, texts)
    fused = fuse(*vectors, SAME_PRODUCT)
    space, has_preferences = whitening.fit_space(
        fused, None if clicked is None else (clicked.users, _renumber(clicked.product_rows, kept, len(titles)))
    )
    save_checkpoint(parts, space, folder)
    return AssemblySummary(
        f"{image_tower}@{trained.image_fingerprint}",
        f"{text_tower}@{trained.text_fingerprint}" if encoder.text_fingerprint else towers.NONE,
        pairs=len(kept),
        left_out=len(sample) - len(kept),
        images_encoded=images_encoded,
        titles_encoded=titles_encoded,
        heads=report,
        unlocked=unlocked,
        has_preferences=has_preferences,
    )


@dataclass(frozen=True)
class AssembledParts:
    """What a checkpoint is made of."""

    model: AssembledModel
    tokenizer: PairTokenizer
    processor: Any
    """Image processor that only resizes, crops and normalizes."""

    def make_encoder(self) -> AssembledEncoder:
        """Return an encoder with a copy of the model, on the first GPU, or on the CPU without one."""
        parts = self.model, self.tokenizer, self.processor
        return AssembledEncoder(*parts, version="unsaved", runtime=choose_runtime())


def open_parts(titles: Sequence[str], *, image_tower: str, text_tower: str, head: str, dim: int) -> AssembledParts:
    """Open towers, and join them with words of some titles and with heads of random weights.

    torch's global seed draws the weights.

    Args:
        titles: titles that the words are taken from.
        image_tower: as in `assemble`.
        text_tower: as in `assemble`.
        head: one of HEADS.
        dim: width of the vectors.

    Raises:
        VitrineError: a tower cannot be opened.
    """
    image = towers.open_image_tower(image_tower)
    text = None if text_tower == towers.NONE else towers.open_text_tower(text_tower)
    words = tiny_clip.train_tokenizer(list(titles))
    description = text.description if text else None
    hidden = HIDDEN if head == "mlp" else 0
    model = AssembledModel(
        AssembledConfig(image.description, description, len(words), hidden=hidden, projection_dim=dim)
    )
    model.image_tower.load_state_dict(image.tower.state_dict())
    if text:
        model.text_tower.load_state_dict(text.tower.state_dict())
    tokenizer = PairTokenizer(
        words,
        text.tokenizer if text else None,
        length=text.description["length"] if text else 0,
        prompt=text.description["prompt"] if text else "",
        lower=bool(text and text.description["lower"]),
        is_padded=bool(text and not text.description["has_mask"]),
    )
    return AssembledParts(model.eval(), tokenizer, image.processor)


def save_checkpoint(parts: AssembledParts, space: Space | None, folder: Path) -> None:
    """Write model, tokenizers, image processor and space; what another training has left there is removed.

    Raises:
        VitrineError: a file cannot be written, as when the disk is full.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        language.remove_head(folder)
        for part in (WORDS_FOLDER, TEXT_FOLDER):
            shutil.rmtree(folder / part, ignore_errors=True)
        for name in (*VOCABULARIES, "tokenizer_config.json", "special_tokens_map.json"):
            (folder / name).unlink(missing_ok=True)
        parts.model.save_pretrained(folder)
        parts.tokenizer.save_pretrained(folder)
        parts.processor.save_pretrained(folder)
        whitening.save_space(space, folder)
    except (SafetensorError, OSError) as error:
        raise VitrineError(
            f"{folder}: the checkpoint cannot be written ({error}); free disk space and run this again, the outputs of "
            "the towers are kept"
        ) from error


def encode_images(
    sources: Sequence[Source], encoder: AssembledEncoder, store: KeptOutputs, progress: Callable[[int, int], None]
) -> tuple[Outputs, int]:
    """Return the image tower's outputs, float16 [n, width], NaN for unusable images, and how many it encoded now."""
    fingerprint, width = encoder.image_fingerprint, encoder.image_width
    outputs, encoded, done = np.full((len(sources), width), np.nan, np.float16), 0, 0
    pending: list[tuple[NDArray[np.int64], list[bytes]]] = []

    def find_missing() -> Iterator[tuple[int, list[Source]]]:
        for start in range(0, len(sources), CHUNK):
            part = range(start, min(start + CHUNK, len(sources)))
            hashes = [_hash_image(source) for source in read_ahead(sources[start : part.stop])]
            outputs[start : part.stop] = store.get(IMAGE, fingerprint, hashes, width)
            missing = np.flatnonzero([hash_ is not None for hash_ in hashes] & np.isnan(outputs[part, 0]))
            for first in range(0, len(missing), encoder.image_batch_size):
                rows = missing[first : first + encoder.image_batch_size]
                pending.append((start + rows, [hashes[row] or b"" for row in rows]))
                yield part.stop, [sources[start + row] for row in rows]

    with open_decoding_pool() as pool:
        for batch in decode_batches(find_missing(), encoder.geometry, pool, size=encoder.image_batch_size):
            rows, hashes = pending.pop(0)
            assert batch.pixels is not None
            vectors = encoder.encode_pixel_outputs(batch.pixels[batch.usable])
            outputs[rows[batch.usable]] = vectors
            hashes = [hash_ for hash_, usable in zip(hashes, batch.usable, strict=True) if usable]
            store.put(IMAGE, fingerprint, hashes, vectors)
            encoded, done = encoded + len(vectors), max(done, batch.key)
            progress(done, len(sources))
    return outputs, encoded


def encode_titles(
    titles: Sequence[str], encoder: AssembledEncoder, store: KeptOutputs, progress: Callable[[int, int], None]
) -> tuple[Outputs, int]:
    """Return the text tower's outputs, float16 [n, width], and how many different titles it encoded now."""
    fingerprint, width = encoder.text_fingerprint, encoder.text_width
    if fingerprint is None:
        return np.empty((len(titles), 0), np.float16), 0
    outputs, encoded = np.empty((len(titles), width), np.float16), 0
    for start in range(0, len(titles), CHUNK):
        part = titles[start : start + CHUNK]
        hashes = [content_hash(title.encode()) for title in part]
        kept = store.get(TITLE, fingerprint, hashes, width)
        missing = {hashes[row]: part[row] for row in np.flatnonzero(np.isnan(kept[:, 0])).tolist()}
        if missing:
            store.put(TITLE, fingerprint, list(missing), encoder.encode_text_outputs(list(missing.values())))
            kept = store.get(TITLE, fingerprint, hashes, width)
        outputs[start : start + CHUNK] = kept
        encoded += len(missing)
        progress(start + len(part), len(titles))
    return outputs, encoded


def _hash_image(source: Source | UnusableImageError) -> bytes | None:
    """Return the content hash of an image, as in the catalogue; None if it cannot be read."""
    if isinstance(source, UnusableImageError):
        return None
    if isinstance(source, bytes):
        return content_hash(source)
    try:
        return content_hash(read_bytes(source))
    except UnusableImageError:
        return None


def _renumber(product_rows: NDArray[np.int64], kept: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Return positions among all titles as positions among the kept ones; -1 for others."""
    position = np.full(count + 1, -1)  # the last entry is for clicks on a product without a title
    position[kept] = np.arange(len(kept))
    return position[product_rows]
