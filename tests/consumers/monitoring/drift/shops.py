"""Small generated shops with real encoders, and changes to their last week."""

import io
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from consumers.monitoring.drift.check import Drift, check
from feature_repo import config
from feature_repo.config import Settings
from feature_repo.offline import delta
from producers.catalogue.ingest import ingest_products
from producers.datasets.shop.write import make_shop
from producers.embeddings.run import embed_catalogue
from producers.encoders import load
from producers.encoders.image_loader import open_decoding_pool
from producers.encoders.pipeline import build_embedding_rows, encode_chunk
from producers.learning.encoder import train_encoder

MADE = datetime(2026, 3, 1, tzinfo=UTC)
WEEK = timedelta(days=7)
QUIET = tuple(datetime(*day, tzinfo=UTC) for day in ((2025, 12, 16), (2026, 2, 3), (2026, 2, 10)))
"""Ends of unchanged weeks in a shop of 40 days. Products came on sale before and in each of them."""
LAST = QUIET[-1]
Change = Callable[[pa.Table], pa.Table]


def make(folder: Path, *, products: int, seed: int, pairs_seen: int, encoders: int = 1) -> Settings:
    """Make a shop with its catalogue and the vectors of `encoder-0`; `encoder-1` is trained on the same shop."""
    data = folder / "shop"
    make_shop(data, products=products, users=20, days=40, seed=seed, language="zh", impressions_per_user=20)
    (folder / "feature_store.yaml").write_text("project: test\noffline_store:\n  path: offline\n")
    store = config.load(folder / "feature_store.yaml")
    ingest_products(store, data / "products.parquet", MADE)
    for number in range(encoders):
        out = folder / f"encoder-{number}"
        train_encoder(data, out, pairs_seen=pairs_seen, seed=number, progress=lambda *_: None)
    embed_catalogue(store, str(folder / "encoder-0"), now=MADE, progress=lambda *_: None)
    return store


def copied(store: Settings, folder: Path) -> Settings:
    """Return a copy of the store."""
    shutil.copytree(store.offline, folder / "offline")
    shutil.copy(store.file, folder / "feature_store.yaml")
    return config.load(folder / "feature_store.yaml")


def last_week(store: Settings, change: Change, *, encoder: Path, version: str | None = None) -> None:
    """Encode the last week's products again, from a changed catalogue. `version` replaces the encoder's version."""
    catalogue = delta.read(store.table("product_catalogue"))
    rows = delta.read(store.table("product_embedding"))
    with open_decoding_pool() as pool:
        model = load(str(encoder))
        encoded = encode_chunk(change(catalogue.filter(_in_last_week())), model, pool)
        made = build_embedding_rows(encoded, model, MADE).rows
    if version is not None:
        place = made.schema.get_field_index("encoder_version")
        made = made.set_column(place, "encoder_version", pa.array([version] * len(made)))
    delta.overwrite(
        store.table("product_embedding"), pa.concat_tables([rows.filter(~_in_last_week()), made.cast(rows.schema)])
    )


def without(store: Settings, category: str) -> None:
    """Remove the last week's products of a category."""
    for view in ("product_catalogue", "product_embedding"):
        rows, catalogue = delta.read(store.table(view)), delta.read(store.table("product_catalogue"))
        gone = catalogue.filter(_in_last_week() & pc.starts_with(pc.field("category"), category))["product_id"]
        kept = rows.filter(pc.invert(pc.is_in(rows["product_id"], value_set=gone.combine_chunks())))
        if view == "product_embedding":
            delta.overwrite(store.table(view), kept)
        else:
            held = kept
    delta.overwrite(store.table("product_catalogue"), held)


def grey(catalogue: pa.Table) -> pa.Table:
    """Replace every image by a grey placeholder."""
    png = io.BytesIO()
    Image.new("RGB", (64, 64), (128, 128, 128)).save(png, "PNG")
    place = catalogue.schema.get_field_index("image_bytes")
    catalogue = catalogue.set_column(place, "image_bytes", pa.array([png.getvalue()] * len(catalogue)))
    place = catalogue.schema.get_field_index("image")
    return catalogue.set_column(place, "image", pa.nulls(len(catalogue), pa.string()))


def mojibake(catalogue: pa.Table) -> pa.Table:
    """Decode the UTF-8 of every title as Latin-1."""
    titles = [title and title.encode().decode("latin-1") for title in catalogue["title"].to_pylist()]
    return catalogue.set_column(catalogue.schema.get_field_index("title"), "title", pa.array(titles, pa.string()))


def unchanged(catalogue: pa.Table) -> pa.Table:
    return catalogue


def run_drift_check(store: Settings, now: datetime = LAST, *, checks_per_alarm: int = 365, seed: int = 0) -> Drift:
    return check(
        store, now=now, window=WEEK, before=4 * WEEK, checks_per_alarm=checks_per_alarm, sample=2000, seed=seed
    )


def subjects(result: Drift) -> set[str]:
    """Return the subjects with an alarm."""
    return {one.subject for one in result.statistics if one.is_alarm}


def _in_last_week() -> pc.Expression:
    stamp = pa.timestamp("us", tz="UTC")
    moment = pc.field("event_timestamp")
    return (moment > pa.scalar(LAST - WEEK, stamp)) & (moment <= pa.scalar(LAST, stamp))
