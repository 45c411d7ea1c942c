"""Train an encoder on the titles, images and clicks of a shop folder."""

import logging
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import compress
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from feature_repo.arrow import text
from feature_repo.errors import InvalidInputError, UsageError
from feature_repo.images import image_store
from feature_repo.images.decoding import Source
from feature_repo.location import BucketPath, find_object
from feature_repo.offline import input_files, validation
from feature_repo.offline.impressions import read_impressions
from feature_repo.schema import CLICKED, EVENT_TIMESTAMP, PRODUCT_ID, PRODUCTS, TIMESTAMP, USER_ID
from feature_repo.table_format import DEFAULT_FORMAT, TableFormat
from producers.catalogue import image_paths
from producers.encoders.checkpoint_version import NAME_FILE, TRAINING_PRODUCTS_FILE, check_name, read_training_products
from producers.encoders.licence import read_licence, write_licence
from producers.encoders.train import TrainingSummary, train
from producers.encoders.training.alignment import ClickArrays
from producers.encoders.training.recipe import Recipe

logger = logging.getLogger(__name__)

CLICK_COLUMNS = (USER_ID, PRODUCT_ID, EVENT_TIMESTAMP)
HELD_OUT = "held_out.parquet"
"""File beside the checkpoint with the held-out products and their designs: product_id, design_id."""


def train_encoder(
    data: Path,
    out: Path,
    *,
    pairs_seen: int | None,
    seed: int,
    progress: Callable[[str, int, int], None],
    minutes: float | None = None,
    recipe: Recipe | None = None,
    checkpoint: str | None = None,
    held_out: pa.Table | None = None,
    clicked: pa.Table | None = None,
    designs: pa.Table | None = None,
    name: str | None = None,
    licence: str | None = None,
    pictures: BucketPath | None = None,
) -> TrainingSummary | None:
    """Train on the products of a shop folder that have a title and an image.

    Args:
        data: folder with products.parquet; relative image paths start there.
        out: folder for the checkpoint; need not exist. A checkpoint in it is replaced. An interrupted training in it is
            continued if the arguments are the same.
        pairs_seen: how many image-text pairs to learn from, repeats included. It is rounded down to whole batches, but
            one step is always done. None chooses it by the number of products.
        seed: of the weights, the order of the pairs and the crops.
        progress: called with what is being done, how much of it is done, and how much there is.
        minutes: the time that the training may take; `pairs_seen` does not count then. None for any time.
        recipe: objectives and rates; None takes the default recipe.
        checkpoint: directory or hub name of an image-text checkpoint to start from; None starts the default model from
            random weights.
        held_out: products to leave out, from `evaluation.hold_out`; they are written to HELD_OUT in `out` when the
            checkpoint is complete. None trains on all products, and then deletes the HELD_OUT of an earlier training.
        clicked: clicks from `read_clicks_before`, for the preference whitening and the alignment objective. Clicks on
            products that are not trained on are ignored. None trains without clicks.
        designs: product_id and design_id, so that the validation of a fine-tuned checkpoint holds out whole designs; of
            products without one, and with None of all, equal titles are one design.
        name: the encoder's name, the part of its version before `@`; it is written to NAME_FILE in `out`. None leaves
            the encoder with the name of its folder.
        licence: the encoder's licence, for LICENCE_FILE in `out`. None takes that of the checkpoint, if it states one.
        pictures: as in `read_pairs`.

    Returns:
        A summary in the first process of a training, None in every other. Its `left_out` counts the products without a
        title or a usable image, not those of `held_out`.

    Raises:
        NotFoundError: products.parquet does not exist.
        InvalidInputError: products.parquet is unreadable, empty or lacks a column; `out` is a file; the name is
            invalid; fewer than two products are usable; the checkpoint cannot be trained; or there are no two clicks to
            align with.
        ConflictError: `out` holds the unfinished state of a training with other arguments.
        UsageError: the batch cannot be divided evenly among the processes.
        VitrineError: the checkpoint cannot be read or written, or its training made it worse.
    """
    check_output(out, name)
    products, images, left_out = read_training_pairs(data, held_out, pictures)
    summary = train(
        products.column("title").to_pylist(),
        images,
        out,
        pairs_seen=pairs_seen,
        minutes=minutes,
        seed=seed,
        progress=progress,
        recipe=recipe,
        checkpoint=checkpoint,
        clicked=to_click_arrays(clicked, products) if clicked is not None else None,
        designs=_find_designs(products, designs) if designs is not None else None,
        is_seen=_find_seen(products, checkpoint) if checkpoint else None,
    )
    if summary is None:
        return None
    write_training_files(out, products[PRODUCT_ID], held_out, name, checkpoint)
    write_licence(out, licence or (read_licence(checkpoint) if checkpoint else None))
    return replace(summary, left_out=summary.left_out + left_out)


def check_output(out: Path, name: str | None) -> None:
    """Check the folder and the name of an encoder before it is trained.

    Raises:
        InvalidInputError: `out` is a file, or the name is invalid.
    """
    if out.exists() and not out.is_dir():
        raise InvalidInputError(f"{out} is a file: name a folder for the checkpoint")
    if name is not None:
        check_name(name)


def read_training_pairs(
    data: Path, held_out: pa.Table | None, pictures: BucketPath | None = None
) -> tuple[pa.Table, list[Source], int]:
    """Return what `read_pairs` does, without the products of `held_out`; None holds out none."""
    products, images, left_out = read_pairs(data, pictures)
    if held_out is not None:
        is_kept = ~pc.is_in(products[PRODUCT_ID], value_set=held_out[PRODUCT_ID].combine_chunks()).to_numpy()
        products, images = products.filter(pa.array(is_kept)), list(compress(images, is_kept))
    return products, images, left_out


def write_training_files(
    out: Path, product_ids: pa.ChunkedArray, held_out: pa.Table | None, name: str | None, checkpoint: str | None = None
) -> None:
    """Write what a training was about beside its complete checkpoint; files of an earlier training are removed.

    Args:
        out: folder of the checkpoint; it gets TRAINING_PRODUCTS_FILE, and HELD_OUT and NAME_FILE if they are given.
        product_ids: the products that were trained on.
        held_out: those that were held out; None if none was.
        name: the encoder's name; None for that of the folder.
        checkpoint: directory of the checkpoint that was fine-tuned, whose products were trained on too; None for none.
    """
    before = read_training_products(Path(checkpoint)) if checkpoint else None
    seen = [product_ids.cast(pa.string()), *([] if before is None else [before])]
    ids = pa.chunked_array([chunk for part in seen for chunk in part.chunks], pa.string())
    pq.write_table(pa.table({PRODUCT_ID: pc.unique(ids)}), out / TRAINING_PRODUCTS_FILE)
    (out / HELD_OUT).unlink(missing_ok=True)  # an earlier training's: this one may have learned from those products
    if held_out is not None:
        pq.write_table(held_out, out / HELD_OUT)
    (out / NAME_FILE).unlink(missing_ok=True)
    if name is not None:
        (out / NAME_FILE).write_text(name + "\n")


def _find_designs(products: pa.Table, designs: pa.Table) -> list[str]:
    """Return what each product shows: its design, or, if it is not in `designs`, its title."""
    row = pc.index_in(products[PRODUCT_ID], value_set=designs[PRODUCT_ID].combine_chunks())
    names = designs["design_id"].cast(pa.string()).take(row).to_pylist()
    titles = products["title"].to_pylist()
    return [f"title {title}" if name is None else f"design {name}" for name, title in zip(names, titles, strict=True)]


def _find_seen(products: pa.Table, checkpoint: str) -> list[bool] | None:
    """Return whether a checkpoint was trained on each product; None if that is not known."""
    trained = read_training_products(Path(checkpoint))
    return None if trained is None else pc.is_in(products[PRODUCT_ID], trained.combine_chunks()).to_pylist()


def read_clicks_before(
    impressions: Path,
    *,
    until: datetime | None,
    test_days: float | None,
    now: datetime,
    table_format: TableFormat = DEFAULT_FORMAT,
) -> tuple[pa.Table, datetime]:
    """Return the clicks of a log before a point in time, and that point in time.

    Args:
        impressions: Parquet or CSV file with CLICK_COLUMNS and `clicked`. Rows that `read_impressions` refuses are left
            out with a warning; those without a user are left out.
        until: the exclusive end of the clicks, with a time zone. If it is given, `test_days` is ignored.
        test_days: if `until` is None, the end is this many days before the end of the log's last day (UTC), as for
            `consume lift --test-days`. The last day is that of the latest row, clicked or not.
        now: rows after it are left out.
        table_format: what the user says about the file.

    Returns:
        The clicks, with the columns CLICK_COLUMNS, in the order of the file, repeated clicks included unless
        they have one impression id; and the exclusive end of the clicks.

    Raises:
        UsageError: neither `until` nor `test_days` is given.
        NotFoundError: the file does not exist.
        InvalidInputError: the file cannot be read, lacks a column, has no usable row, or has no click before the
            end.
    """
    if until is None and test_days is None:
        raise UsageError(
            "--align needs --until TIME or --test-days N: the lift of an encoder that has seen the clicks it is "
            "measured on is meaningless"
        )
    log = read_impressions(impressions, now=now, table_format=table_format, required=[*CLICK_COLUMNS, CLICKED])
    input_files.warn_of_rows(log.refused)
    for remark in log.remarks:
        logger.warning("%s: %s", impressions, remark)
    rows = log.table
    if until is None:
        latest = pc.max(rows[EVENT_TIMESTAMP]).as_py()
        midnight = latest.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        until = midnight + timedelta(days=1) - timedelta(days=float(test_days or 0))
    clicks = rows.filter((pc.field(CLICKED) == 1) & (pc.field(EVENT_TIMESTAMP) < pa.scalar(until, TIMESTAMP)))
    clicks = clicks.select(CLICK_COLUMNS).drop_null()
    if not len(clicks):
        raise InvalidInputError(f"{impressions}: no click before {until:%Y-%m-%d %H:%M} UTC to align with")
    return clicks, until


def read_pairs(data: Path, pictures: BucketPath | None = None) -> tuple[pa.Table, list[Source], int]:
    """Read the products of a shop folder that have a title and an image.

    Args:
        data: folder with products.parquet; relative image paths start there.
        pictures: a prefix in a bucket. Relative paths start there instead, and URLs below it are its objects, as in
            `produce catalogue`. None: no image is in a bucket.

    Returns:
        The products in the order of the file, with all of its columns; path, object or bytes of each one's image, in
        the same order; and how many products were left out. Ids and titles are normalized (feature_repo.arrow.text), as
        in the catalogue. The images are not opened. Text that is not UTF-8 counts as
        missing; an empty title does not. A repeated product id is kept each time.

    Raises:
        NotFoundError: products.parquet does not exist.
        InvalidInputError: products.parquet is unreadable or empty, or lacks product_id, title or image.
    """
    file = data / "products.parquet"
    products = input_files.read_table(file, PRODUCTS.names, allow_invalid_utf8=True)
    validation.require_columns(products, [PRODUCT_ID, "title", "image"], file)
    products, _ = validation.null_invalid_utf8(products, [PRODUCT_ID, "title", "image"])
    for name, normalize in ((PRODUCT_ID, text.normalize_ids), ("title", text.normalize_texts)):
        column = normalize(validation.parse_text(products, name, file))
        products = products.set_column(products.column_names.index(name), name, column)
    pairs = products.filter(pc.field("title").is_valid() & pc.field("image").is_valid())
    images: list[Source] = [
        image if isinstance(image, bytes) else image_store.resolve_path(image, data)
        for image in pairs.column("image").to_pylist()
    ]
    if pictures is not None and not pa.types.is_binary(pairs["image"].type):
        resolved = image_paths.resolve_paths(pairs["image"], file, pictures).absolute.to_pylist()
        images = [find_object(path, pictures) if path else given for path, given in zip(resolved, images, strict=True)]
    return pairs, images, products.num_rows - pairs.num_rows


def to_click_arrays(clicks: pa.Table, products: pa.Table) -> ClickArrays:
    """Convert clicks with CLICK_COLUMNS to arrays, in their order.

    A product is given as its row in `products`, -1 if it is not there; a user as a number from 0.
    """
    ids = products[PRODUCT_ID].combine_chunks()
    row = pc.fill_null(pc.index_in(clicks[PRODUCT_ID], value_set=ids), -1)
    return ClickArrays(
        users=pc.dictionary_encode(clicks[USER_ID]).combine_chunks().indices.to_numpy().astype(np.int64),
        product_rows=row.to_numpy().astype(np.int64),
        timestamps_us=clicks[EVENT_TIMESTAMP].cast(pa.int64()).to_numpy(),
    )
