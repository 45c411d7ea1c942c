"""A deployment whose titles and ids attack the pages, and a server of its pages in this process."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image

from consumers.labels.judging import store_sample
from consumers.online import OnlineReader
from consumers.pages.application import open_pages
from consumers.serving.executor import RequestExecutor
from consumers.serving.http import create_app
from consumers.serving.metrics import Metrics
from feature_repo import schema
from feature_repo.auth import ServerAccess
from feature_repo.config import Settings
from feature_repo.exported.encoder import open_encoder
from feature_repo.index.rows import INDEX_ROWS, find_folder
from feature_repo.index.update import IndexedProducts, build_index
from feature_repo.offline import delta
from feature_repo.server.http_server import HttpServer
from feature_repo.server.request_log import AccessLog
from feature_repo.serving_limits import ConnectionLimits, ServingLimits

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
ODD_ID = 'a/b?c#d &"e"'
TITLES = {
    "p00001": "红色 连衣裙",
    "p00002": "<script>document.title='owned'</script>红色",
    "p00003": '"><img src=x onerror="document.title=\'owned\'"> 红色',
    "p00004": "javascript:document.title='owned' 红色 </textarea></title>",
    ODD_ID: "红色 '); document.title='owned'; ('",
    "..": "红色 a product whose id looks like a folder",
    **{f"b{number:02}": f"蓝色积木 {number}" for number in range(30)},
}


@dataclass(frozen=True)
class PageWorld:
    settings: Settings
    towers: Path

    def write(self) -> None:
        """Write an index of the products, groups, and a journal."""
        folder = self.settings.file.parent
        rows = []
        for number, (product_id, title) in enumerate(TITLES.items()):
            image = folder / f"picture-{number}.png"
            Image.new("RGB", (40, 30), (255 - 5 * number, 3 * number, 0)).save(image)
            has_picture = product_id != "p00004"
            rows.append(
                {
                    "product_id": product_id,
                    "title": title,
                    "image": str(image) if has_picture else None,
                    "image_hash": number.to_bytes(16) if has_picture else None,
                    "category": "玩具>积木" if "积木" in title else "服装>裙子",
                    "brand": "<i>brand</i>",
                    "price": 10.0 * (number + 1),
                    "seller_id": "s&1",
                    "in_stock": number % 2 == 0,
                    "tag_child_age": "1-3y",
                    "catalogue_us": 1,
                    "embedding_us": 1,
                }
            )
        encoder = open_encoder(self.towers)
        text = encoder.encode_texts(list(TITLES.values()))
        image = encoder.encode_pictures([Path(row["image"] or rows[0]["image"]) for row in rows])
        image[[row["image"] is None for row in rows]] = np.nan
        build_index(
            find_folder(self.settings, encoder.encoder_version),
            encoder.encoder_version,
            IndexedProducts(pa.Table.from_pylist(rows, INDEX_ROWS), {"text_vector": text, "image_vector": image}, {}),
        )
        times = {schema.EVENT_TIMESTAMP: NOW, schema.CREATED_TIMESTAMP: NOW}
        groups = [{"product_id": one, "group_id": "g1", **times} for one in ("p00001", ODD_ID)]
        delta.append(self.settings.table(schema.GROUP_TABLE), pa.Table.from_pylist(groups, schema.PRODUCT_GROUP))
        lines = [{"product_id": one["product_id"], "change": "joined", "to_group_id": "g1", **times} for one in groups]
        path = self.settings.table(schema.GROUP_JOURNAL_TABLE)
        delta.append(path, pa.Table.from_pylist(lines, schema.PRODUCT_GROUP_JOURNAL))

    def store_sample(self, name: str, pairs: int) -> None:
        """Store a sample of pairs to judge; the last pair is a repeat of the first."""
        ids = [*TITLES]
        store_sample(self.settings, make_sample(name, [(ids[n], ids[n + 1]) for n in range(pairs - 1)]), NOW)


def make_sample(name: str, pairs: list[tuple[str, str]]) -> pa.Table:
    """Return pairs as a sample, and the first one a second time with the sides exchanged."""
    from consumers.labels.sample import make_pair_id, make_repeat_id

    rows = [
        {
            "pair_id": make_pair_id(name, left, right),
            "product_id_l": left,
            "product_id_r": right,
            "inclusion_probability": 0.25,
            "week": name,
            "category": "服装",
            "probability": 0.5,
            "rank": 1,
            "in_one_group": True,
            "is_repeat": False,
        }
        for left, right in pairs
    ]
    first = rows[0]
    exchanged = {"product_id_l": first["product_id_r"], "product_id_r": first["product_id_l"], "is_repeat": True}
    rows.append(first | exchanged | {"pair_id": make_repeat_id(first["pair_id"])})
    return pa.Table.from_pylist(rows, schema.PAIR_LABEL)


@contextmanager
def serving_pages(
    world: PageWorld, *, access: ServerAccess | None = None, calibration: Path | None = None, port: int = 0
) -> Iterator[str]:
    """Serve the pages of a world until the end of the block; yield their address."""
    access = access or ServerAccess()
    with OnlineReader(f"lmdb://{world.settings.file.parent / 'online'}", world.settings.project) as reader:
        executor = RequestExecutor(reader, limits=ServingLimits(), metrics=Metrics(), access_log=AccessLog(None))
        with open_pages(
            world.settings,
            reader,
            executor,
            access,
            towers=world.towers,
            calibration=calibration,
            has_status=False,
            clock=lambda: datetime.now(UTC),
        ) as application:
            started = threading.Event()
            routers, pages, limits = application.routers, application.pages, application.body_limits
            server = HttpServer(
                create_app(executor, access, routers=routers, pages=pages, body_limits=limits),
                access,
                port,
                limits=ConnectionLimits(),
                metrics=executor.metrics,
                on_ready=started.set,
            )
            thread = threading.Thread(target=server.run, daemon=True)
            thread.start()
            assert started.wait(10)
            try:
                yield f"http://127.0.0.1:{server.port}"
            finally:
                server.stop()
                thread.join()
                executor.close()
