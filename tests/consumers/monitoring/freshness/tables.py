"""A store with known events, rows and online times. Hours are counted backwards from NOW."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import yaml

from feature_repo import config
from feature_repo.config import Settings
from feature_repo.offline import delta
from feature_repo.online.catalog import View
from feature_repo.online.lmdb_store import LMDBStore
from feature_repo.online.materialization_log import MaterializationLog, TimeWindow
from feature_repo.online.materialize import identify_file
from feature_repo.online.open_store import LMDB, open_configured_table
from feature_repo.online.row_format import Layout
from feature_repo.schema import TIMESTAMP

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
VIEWS = ("product_catalogue", "product_embedding", "product_tags")
Row = tuple[str, float]
"""A product, and the age of its event in hours."""


def ago(hours: float) -> datetime:
    return NOW - hours * HOUR


def make_store(folder: Path) -> Settings:
    folder.mkdir(parents=True, exist_ok=True)
    online = {"type": LMDB, "path": "online"}
    raw = {"project": "test", "offline_store": {"path": "offline"}, "online_store": online}
    (folder / "feature_store.yaml").write_text(yaml.safe_dump(raw))
    LMDBStore(folder / "online", create=True)
    return config.load(folder / "feature_store.yaml")


def append(
    store: Settings, view: str, rows: Sequence[Row], *, category: str = "toys>blocks", version: str = "encoder@1"
) -> None:
    """Append rows in one commit, which is one file."""
    products, hours = [product for product, _ in rows], [hours for _, hours in rows]
    columns = {
        "product_id": pa.array(products, pa.string()),
        "event_timestamp": pa.array(list(map(ago, hours)), TIMESTAMP),
        "created_timestamp": pa.array(list(map(ago, hours)), TIMESTAMP),
    }
    extra = "category" if view == "product_catalogue" else "encoder_version"
    columns[extra] = pa.array([category if extra == "category" else version] * len(rows), pa.string())
    delta.append(store.table(view), pa.table(columns))


def put_online(store: Settings, view: str, *, hours: float, up_to: float = -1e4) -> None:
    """Record that all rows of events up to `up_to` hours ago came online `hours` ago."""
    online = open_configured_table(store)
    assert online is not None
    known = online.catalog.register_view(View(view, (("product_id", "string"),), 0, (Layout.from_fields([]),)))
    log = MaterializationLog(online, known, clock=lambda: ago(hours))
    files = [identify_file(one) for one in delta.open_dataset(store.table(view)).get_fragments()]
    left = log.state.find_pending(files, TimeWindow(ago(1e4), ago(up_to)))
    log.add(list(left), TimeWindow(ago(1e4), ago(up_to)))
    log.finish(files)
