"""A catalogue's titles and pictures to a trained encoder."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import compress
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from feature_repo import image_store
from feature_repo.errors import UsageError, VitrineError
from feature_repo.offline import input_files, validation
from feature_repo.schema import CLICKED, EVENT_TIMESTAMP, IMPRESSIONS, PRODUCT_ID, PRODUCTS, TIMESTAMP, USER_ID
from producers.encoders.image_loader import Source
from producers.encoders.train import TrainingSummary, train
from producers.encoders.training.alignment import ClickArrays
from producers.encoders.training.recipe import Recipe

CLICK_COLUMNS = (USER_ID, PRODUCT_ID, EVENT_TIMESTAMP)
HELD_OUT = "held_out.parquet"
"""Beside the checkpoint: the products that it never saw, with their designs."""


def train_encoder(
    data: Path,
    out: Path,
    *,
    pairs_seen: int,
    seed: int,
    progress: Callable[[str, int, int], None],
    recipe: Recipe | None = None,
    checkpoint: str | None = None,
    held_out: pa.Table | None = None,
    clicked: pa.Table | None = None,
) -> TrainingSummary | None:
    """Train on the products of a shop folder that have a title and a picture; arguments as in `train`.

    Args:
        held_out: products that are not learnt from (evaluation.hold_out); they are listed beside the checkpoint.
        clicked: clicks to align with (read_clicks_before).

    Raises:
        VitrineError: DATA/products.parquet is missing, unreadable, or not of the documented shape; OUT is a file.
    """
    if out.exists() and not out.is_dir():
        raise VitrineError(f"{out} is a file: name a folder for the checkpoint")
    products, pictures, left_out = read_pairs(data)
    if held_out is not None:
        seen = ~pc.is_in(products[PRODUCT_ID], value_set=held_out[PRODUCT_ID].combine_chunks()).to_numpy()
        products, pictures = products.filter(pa.array(seen)), list(compress(pictures, seen))
    made = train(
        products.column("title").to_pylist(),
        pictures,
        out,
        pairs_seen=pairs_seen,
        seed=seed,
        progress=progress,
        recipe=recipe,
        checkpoint=checkpoint,
        clicked=_rows_clicked(clicked, products) if clicked is not None else None,
    )
    if made is None:
        return None
    (out / HELD_OUT).unlink(missing_ok=True)  # of an earlier training: this one may have learnt from those
    if held_out is not None:
        pq.write_table(held_out, out / HELD_OUT)
    return replace(made, left_out=made.left_out + left_out)


def read_clicks_before(
    impressions: Path, *, until: datetime | None, test_days: float | None, now: datetime
) -> tuple[pa.Table, datetime]:
    """The clicks of a log before a moment, and that moment.

    Args:
        impressions: a file of schema.IMPRESSIONS; rows without user, product or a usable time say nothing and are left
            out: `consume lift` names each of them.
        until: clicks before it are taken, exclusive; it has a time zone.
        test_days: where `until` is not given, this long before the end of the log's last day, as `consume lift
            --test-days` cuts it.
        now: later rows are left out.

    Raises:
        UsageError: neither is given: which days are to be measured cannot be told.
        VitrineError: the file cannot be read, lacks a column, or has no click before the moment.
    """
    if until is None and test_days is None:
        raise UsageError(
            "--align needs --until TIME or --test-days N: an encoder that has seen the clicks a lift is measured on "
            "proves nothing"
        )
    table = input_files.read_table(impressions, IMPRESSIONS.names)
    validation.require_columns(table, [*CLICK_COLUMNS, CLICKED], impressions)
    times, unusable = validation.parse_timestamps(table, EVENT_TIMESTAMP, impressions, now)
    columns = [
        validation.parse_text(table, USER_ID, impressions),
        validation.parse_text(table, PRODUCT_ID, impressions),
        times,
    ]
    log = pa.table([*columns, validation.parse_numbers(table, CLICKED, impressions)], names=[*CLICK_COLUMNS, CLICKED])
    log = log.filter(pa.array(~np.any([check.bad for check in unusable], axis=0)))
    if not len(log):
        raise VitrineError(f"{impressions}: no row has a usable {EVENT_TIMESTAMP}")
    if until is None:
        latest = pc.max(log[EVENT_TIMESTAMP]).as_py()
        midnight = latest.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        until = midnight + timedelta(days=1) - timedelta(days=float(test_days or 0))
    clicks = log.filter((pc.field(CLICKED) == 1) & (pc.field(EVENT_TIMESTAMP) < pa.scalar(until, TIMESTAMP)))
    clicks = clicks.select(CLICK_COLUMNS).drop_null()
    if not len(clicks):
        raise VitrineError(f"{impressions}: no click before {until:%Y-%m-%d %H:%M} UTC to align with")
    return clicks, until


def read_pairs(data: Path) -> tuple[pa.Table, list[Source], int]:
    """The products of a shop folder that have a title and name a picture, those pictures, and how many have not.

    Raises:
        VitrineError: DATA/products.parquet is missing, unreadable, or not of the documented shape.
    """
    file = data / "products.parquet"
    products = input_files.read_table(file, PRODUCTS.names, misspelt=True)
    validation.require_columns(products, [PRODUCT_ID, "title", "image"], file)
    products, _ = validation.null_invalid_utf8(products, [PRODUCT_ID, "title", "image"])
    ids = validation.parse_text(products, PRODUCT_ID, file)
    products = products.set_column(products.column_names.index(PRODUCT_ID), PRODUCT_ID, ids)
    pairs = products.filter(pc.field("title").is_valid() & pc.field("image").is_valid())
    pictures: list[Source] = [
        image if isinstance(image, bytes) else image_store.resolve_path(image, data)
        for image in pairs.column("image").to_pylist()
    ]
    return pairs, pictures, products.num_rows - pairs.num_rows


def _rows_clicked(clicks: pa.Table, products: pa.Table) -> ClickArrays:
    """Clicks of schema.IMPRESSIONS as rows of `products`."""
    ids = products[PRODUCT_ID].combine_chunks()
    row = pc.fill_null(pc.index_in(clicks[PRODUCT_ID], value_set=ids), -1)
    return ClickArrays(
        users=pc.dictionary_encode(clicks[USER_ID]).combine_chunks().indices.to_numpy().astype(np.int64),
        product_rows=row.to_numpy().astype(np.int64),
        timestamps_us=clicks[EVENT_TIMESTAMP].cast(pa.int64()).to_numpy(),
    )
