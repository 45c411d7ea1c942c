"""Tune an encoder for finding the same product, or for sentences, on the labels of one shop."""

from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray

from feature_repo import memory
from feature_repo.errors import InvalidInputError, UsageError, VitrineError
from feature_repo.fusion import SAME_PRODUCT, Space, fuse
from feature_repo.images.decoding import Source, UnusableImageError, open_image
from feature_repo.location import BucketPath
from feature_repo.schema import PRODUCT_ID
from producers.embeddings.output_store import OutputStore, open_outputs
from producers.encoders import whitening
from producers.encoders.assembled.assemble import encode_images, encode_titles
from producers.encoders.checkpoint_version import read_training_products, resolve_checkpoint
from producers.encoders.licence import read_licence, write_licence
from producers.encoders.texture import GREY
from producers.encoders.training.training_state import remove_state
from producers.encoders.tuning import measures
from producers.encoders.tuning.examples import Rows, SameProducts, Sentences, Vectors
from producers.encoders.tuning.fit import FitReport, fit
from producers.encoders.tuning.tasks import MatchingLoss, SelectionLoss, TunedProducts
from producers.encoders.tuning.tunable import TextInputs, TunableEncoder, open_tunable, to_float
from producers.index import texture
from producers.learning.encoder import check_output, read_training_pairs, to_click_arrays, write_training_files
from producers.learning.tuning_inputs import (
    draw_held_out,
    join_products,
    make_sentences,
    read_pair_labels,
    read_sentence_labels,
)
from producers.learning.tuning_report import TuningReport
from producers.learning.tuning_uses import EncodedShop, compare_uses, list_attributes

MAX_PRODUCTS = 100_000
"""Products that are trained and measured on at most; taken at equal distances."""
MIN_HELD_OUT = 50
"""With fewer held-out products a measure would be chance."""
TEXTURE_PICTURES = 2_000
"""Pictures that the dictionary of texture is learned from, at most."""
ROWS_AT_ONCE = 1024
"""Images or texts that pass through the heads at once for a measure."""
WORDS, LABELLED = "words of the titles", "labelled sentences"
"""Kinds of sentences."""
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class TuningData:
    """n products, what is known about them, and which are held out."""

    table: pa.Table
    products: TunedProducts
    known: SameProducts
    units: Rows
    """What is held out together [n]."""
    is_held_out: NDArray[np.bool_]
    sentences: dict[str, Sentences]
    """Kind to sentences about the n products."""
    inputs: dict[str, TextInputs]
    """The same sentences as the heads read them."""


def tune_encoder(
    data: Path,
    out: Path,
    *,
    checkpoint: str,
    task: str,
    pairs: Path | None,
    designs: pa.Table | None,
    outputs: Path,
    minutes: float | None,
    seed: int,
    progress: Progress,
    clicked: pa.Table | None = None,
    tag_labels: pa.Table | None = None,
    name: str | None = None,
    licence: str | None = None,
    pictures: BucketPath | None = None,
) -> TuningReport:
    """Tune an encoder on the products of a shop folder that have a title and an image.

    Whole designs are held out. The tuning stops when its measure on them no longer rises, and takes the weights of the
    best measurement.

    Args:
        data: folder with products.parquet; relative image paths start there.
        out: folder for the checkpoint; need not exist. A checkpoint in it is replaced. An interrupted tuning in it is
            continued if the arguments are the same.
        checkpoint: directory or hub name of the encoder that is tuned.
        task: `matching` or `selection`.
        pairs: labelled pairs (matching) or labelled sentences (selection); None without labels.
        designs: product_id and design_id; products of one design are the same. None without any.
        outputs: folder in which the towers' outputs are kept.
        minutes: time for the training steps; None for any time.
        seed: of everything random.
        progress: called with what is being done, how much of it is done, and how much there is.
        clicked: clicks for the preference whitening, as in `train_encoder`.
        tag_labels: product_id, tag and value, whose prediction is measured; None measures that of categories only.
        name: the encoder's name, as in `train_encoder`.
        licence: the encoder's licence, as in `train_encoder`.
        pictures: as in `read_pairs`.

    Raises:
        NotFoundError: a file does not exist.
        InvalidInputError: a file cannot be used (see `tuning_inputs`), the encoder cannot be tuned, there is nothing to
            learn from, or the products are too few to hold some out.
        ConflictError: `out` holds the unfinished state of another training.
        UsageError: `out` is the checkpoint itself.
        VitrineError: the checkpoint cannot be read or written, or the tuning made it worse: nothing is written then.
    """
    check_output(out, name)
    if out.resolve() == Path(checkpoint).resolve():
        raise UsageError(f"--output is the encoder of --from, {checkpoint}; name another folder")
    memory.keep_freed()
    table, images, left_out = read_training_pairs(data, None, pictures)
    sample = np.linspace(0, len(table) - 1, min(len(table), MAX_PRODUCTS)).astype(np.int64)
    table, images = table.take(pa.array(sample)), [images[row] for row in sample]
    known, units, labelled = _read_examples(task, pairs, designs, table)
    encoder = open_tunable(checkpoint, trains_small_text=task == "selection")
    if encoder.lacks_texture:
        _add_texture(encoder, images)
    with open_outputs(outputs) as store:
        prepared = _prepare(encoder, table, images, known, units, labelled, store, progress)
    before = _encode(encoder, prepared, whitening.read_space(resolve_checkpoint(checkpoint), encoder.dim))
    report = _fit(encoder, prepared, before, task, out, minutes, seed, progress)
    after = _encode(encoder, prepared, None)
    clicks = None if clicked is None else to_click_arrays(clicked, prepared.table)
    space, _ = whitening.fit_space(after.fused, None if clicks is None else (clicks.users, clicks.product_rows))
    after = EncodedShop(after.image, after.text, space, after.sentences)
    uses = compare_uses(
        before,
        after,
        known=prepared.known,
        units=prepared.units,
        is_held_out=prepared.is_held_out,
        sentences=prepared.sentences,
        attributes=list_attributes(prepared.table, tag_labels),
    )
    encoder.save(space, out)
    ids, is_held_out = prepared.table[PRODUCT_ID], pa.array(prepared.is_held_out)
    seen = read_training_products(Path(checkpoint))
    is_seen = None if seen is None else pc.is_in(ids.filter(is_held_out), value_set=seen.combine_chunks())
    summary = TuningReport(
        encoder.version,
        task,
        products=len(ids),
        left_out=left_out + len(table) - len(ids),
        held_out=int(prepared.is_held_out.sum()),
        seen=0 if is_seen is None else pc.sum(is_seen).as_py(),
        fit=report,
        uses=tuple(uses),
    )
    held_out = pa.table({PRODUCT_ID: ids, "design_id": pa.array(prepared.units)}).filter(is_held_out)
    write_training_files(out, ids.filter(pc.invert(is_held_out)), held_out, name, checkpoint)
    write_licence(out, licence or read_licence(checkpoint))
    summary.write(out)
    remove_state(out)
    return summary


def _read_examples(
    task: str, pairs: Path | None, designs: pa.Table | None, table: pa.Table
) -> tuple[SameProducts, Rows, Sentences | None]:
    """Return which products are the same, what is held out together, and the labelled sentences.

    Raises:
        InvalidInputError: for matching no two products are known to be the same.
    """
    judged = read_pair_labels(pairs, table[PRODUCT_ID]) if pairs and task == "matching" else None
    labelled = read_sentence_labels(pairs, table[PRODUCT_ID]) if pairs and task == "selection" else None
    names = None
    if designs is not None:
        row = pc.index_in(table[PRODUCT_ID], value_set=designs[PRODUCT_ID].combine_chunks())
        names = designs["design_id"].cast(pa.string()).take(row).to_pylist()
    known, units = join_products(table["title"].to_pylist(), names, judged)
    if task == "matching" and not known.list_groups():
        raise InvalidInputError(
            "no two products are known to be the same: give labelled pairs by --pairs or groups by --designs"
        )
    return known, units, labelled


def _add_texture(encoder: TunableEncoder, images: list[Source]) -> None:
    """Let the encoder see texture, by a dictionary of some of the pictures."""
    pictures = []
    for row in np.linspace(0, len(images) - 1, min(len(images), TEXTURE_PICTURES)).astype(np.int64):
        try:
            pictures.append(encoder.geometry.apply(open_image(images[row])))
        except UnusableImageError:
            continue  # counted by the encoding
    if pictures:
        pixels = np.stack(pictures)
        grey = list(pixels.astype(np.float32) @ np.array(GREY, np.float32))
        encoder.add_texture(texture.learn_dictionary(grey), texture.NOISE, pixels)


def _prepare(
    encoder: TunableEncoder,
    table: pa.Table,
    images: list[Source],
    known: SameProducts,
    units: Rows,
    labelled: Sentences | None,
    store: OutputStore,
    progress: Progress,
) -> TuningData:
    """Encode the products by the frozen towers, hold some out, and make sentences.

    Raises:
        InvalidInputError: the products are too few, or no word of their titles is frequent.
    """
    image_outputs, _ = encode_images(images, encoder.frozen, store, lambda *at: progress("encode images", *at))
    titles = table["title"].to_pylist()
    text_outputs, _ = encode_titles(titles, encoder.frozen, store, lambda *at: progress("encode titles", *at))
    rows = np.flatnonzero(np.isfinite(image_outputs).all(axis=1) & np.isfinite(text_outputs).all(axis=1))
    table, titles = table.take(pa.array(rows)), [titles[row] for row in rows]
    is_held_out = draw_held_out(units[rows], known.groups[rows], table[PRODUCT_ID].to_pylist())
    if is_held_out.sum() < MIN_HELD_OUT:
        raise InvalidInputError(
            f"{len(rows):,} products have a title and a usable image, and {int(is_held_out.sum())} of them would be "
            f"held out; at least {MIN_HELD_OUT} are needed to see whether the encoder gets better or worse"
        )
    sentences = {WORDS: make_sentences(table, ~is_held_out)}
    if labelled is not None:
        sentences[LABELLED] = labelled.select(rows)
    inputs = {
        kind: encoder.prepare_texts(about.texts, encoder.frozen.encode_text_outputs(about.texts))
        for kind, about in sentences.items()
    }
    products = TunedProducts(
        image_outputs[rows],
        encoder.prepare_texts(titles, text_outputs[rows]),
        np.unique(np.array(titles), return_inverse=True)[1],
    )
    return TuningData(table, products, known.select(rows), units[rows], is_held_out, sentences, inputs)


def _encode(encoder: TunableEncoder, data: TuningData, space: Space | None) -> EncodedShop:
    """Return the vectors of the products and sentences by the encoder as it is."""
    sentences = {kind: _encode_texts(encoder, inputs) for kind, inputs in data.inputs.items()}
    text = _encode_texts(encoder, data.products.texts)
    return EncodedShop(_encode_images(encoder, data.products), text, space, sentences)


def _encode_images(encoder: TunableEncoder, products: TunedProducts, rows: Rows | None = None) -> Vectors:
    rows = np.arange(len(products.images)) if rows is None else rows
    with torch.inference_mode():
        parts = np.array_split(rows, -(-len(rows) // ROWS_AT_ONCE))
        return np.concatenate([encoder.encode_images(to_float(products.images[part])).numpy() for part in parts])


def _encode_texts(encoder: TunableEncoder, inputs: TextInputs, rows: Rows | None = None) -> Vectors:
    rows = np.arange(len(inputs)) if rows is None else rows
    with torch.inference_mode():
        parts = np.array_split(rows, -(-len(rows) // ROWS_AT_ONCE))
        return np.concatenate([encoder.encode_texts(inputs, part).numpy() for part in parts])


def _fit(
    encoder: TunableEncoder,
    data: TuningData,
    before: EncodedShop,
    task: str,
    out: Path,
    minutes: float | None,
    seed: int,
    progress: Progress,
) -> FitReport:
    """Tune the heads in place.

    Raises:
        VitrineError: no measurement was higher than that before the first step.
    """
    rows, held_out = np.flatnonzero(~data.is_held_out), np.flatnonzero(data.is_held_out)
    trained = data.products.select(rows)
    fused = fuse(before.image[rows], before.text[rows], SAME_PRODUCT)
    known, kind = data.known.select(rows), LABELLED if LABELLED in data.sentences else WORDS
    own = data.sentences[kind].select(held_out)
    encoder.rescale(to_float(trained.images[:ROWS_AT_ONCE]), trained.texts)
    compute_loss: torch.nn.Module
    if task == "matching":
        what = "recall@10 of the same product"
        if not known.list_groups():
            raise InvalidInputError("no two products that are trained on are known to be the same; label more pairs")
        compute_loss = MatchingLoss(encoder, trained, known, fused)
    else:
        what = f"AP@50 of {kind}"
        labelled = (data.sentences[kind].select(rows), data.inputs[kind]) if kind == LABELLED else None
        worded = data.sentences[WORDS].select(rows), data.inputs[WORDS]
        compute_loss = SelectionLoss(encoder, trained, worded, labelled, before.image[rows])

    def measure() -> float:
        if task == "selection":
            queries = _encode_texts(encoder, data.inputs[kind])
            images = _encode_images(encoder, data.products, held_out)
            return float(np.nanmean(measures.measure_sentences(queries, images, own)))
        shop = _encode(encoder, data, None)
        values = [
            measures.measure_same_recall(vectors, data.known.groups, held_out) for vectors in (shop.image, shop.fused)
        ]
        return float(np.nanmean(values))

    report = fit(
        encoder.module,
        compute_loss,
        measure,
        seed=seed,
        seconds=None if minutes is None else 60 * minutes,
        folder=out,
        identity=_identify(encoder, data, (task, minutes, seed)),
        progress=lambda done, total: progress("tune", done, total),
    )
    if not report.is_better:
        remove_state(out)
        if out.is_dir() and not any(out.iterdir()):
            out.rmdir()
        raise VitrineError(
            f"{out}: nothing was saved, because the encoder got no better: {what} of {len(held_out):,} held-out "
            f"products {report.measured[0]:.3f} before and {max(report.measured[1:]):.3f} after; label more products"
        )
    return report


def _identify(encoder: TunableEncoder, data: TuningData, settings: tuple[object, ...]) -> str:
    """Return 24 hex digits of everything that the result of a tuning depends on."""
    digest = blake2b(repr((encoder.version, settings)).encode(), digest_size=12)
    for array in (data.products.images, data.products.title_ids, data.known.groups, data.known.different):
        digest.update(np.ascontiguousarray(array).tobytes())
    digest.update(data.is_held_out.tobytes() + data.known.is_complete.tobytes())
    for about in data.sentences.values():
        digest.update("\0".join(about.texts).encode() + about.fits.indices.tobytes())
        if about.misfits is not None:
            digest.update(about.misfits.indices.tobytes())
    return digest.hexdigest()
