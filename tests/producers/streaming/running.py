"""A deployment on Redis, what is sent to it, and streaming processes to be killed, forked from a server that has
imported everything."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path

import redis

from consumers.online import OnlineReader
from feature_repo import config as settings
from feature_repo import run_log
from feature_repo.config import Settings
from feature_repo.online.redis_connection import parse_url
from producers.streaming.loop import Stream, StreamCounts
from producers.streaming.metrics import StreamMetrics
from producers.streaming.open_stream import StreamOptions, open_stream
from producers.streaming.redis_source import RedisSource
from tests import servers

context = get_context("forkserver")
context.set_forkserver_preload(["tests.producers.streaming.running", "producers.encoders.checkpoint"])

PREFIX = "shop"
BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
TITLES = ("红色连衣裙", "男童鞋", "蓝女婴儿", "女童鞋", "蓝色连衣裙")
YAML = """project: shop
provider: local
registry:
  registry_type: sql
  path: sqlite:///{folder}/registry.db
offline_store:
  type: feature_repo.stores.offline.DeltaOfflineStore
  path: offline
online_store:
  type: feature_repo.stores.online.RedisOnlineStore
  connection_string: {address}
entity_key_serialization_version: 3
"""


@dataclass(frozen=True)
class Shop:
    """A deployment without a row."""

    settings: Settings
    server: servers.RedisServer
    encoder: Path

    @property
    def url(self) -> str:
        return f"redis://{self.server.address}"

    @property
    def redis(self) -> redis.Redis:
        return self.server.client()

    def reader(self) -> OnlineReader:
        return OnlineReader(self.url, "shop")

    def source(self) -> RedisSource:
        return RedisSource(parse_url(self.url), PREFIX)

    def send_product(self, number: int, sent_as: str = "*", **fields: str | bytes) -> None:
        """A product that is good but for what is said, under an id that Redis chooses unless it is given."""
        product = {
            "product_id": f"p{number}",
            "title": TITLES[number % len(TITLES)] * (1 + number % 3),
            "category": "童装>裙",
            "price": str(number),
            "updated_at": (BEGAN + timedelta(seconds=number)).isoformat(),
        }
        self.redis.xadd(f"{PREFIX}:products", product | fields, id=sent_as)  # type: ignore[arg-type]

    def send_click(self, number: int, sent_as: str = "*", **fields: str | bytes) -> None:
        click = {
            "user_id": f"u{number % 7}",
            "product_id": f"p{number}",
            "event_timestamp": (BEGAN + timedelta(days=1, seconds=number)).isoformat(),
        }
        self.redis.xadd(f"{PREFIX}:clicks", click | fields, id=sent_as)  # type: ignore[arg-type]

    def deliver(self) -> None:
        """Let the stream's consumer have what has been sent, without its knowledge: as to a process that dies of it."""
        source = self.source()
        while source.take(100, 0.001):
            pass

    def left(self) -> int:
        """Messages that are not acknowledged."""
        found = 0
        for kind in ("products", "clicks"):
            name = f"{PREFIX}:{kind}"
            groups = self.redis.xinfo_groups(name) if self.redis.exists(name) else []
            if not groups:
                found += self.redis.xlen(name)
                continue
            group = groups[0]
            found += group["pending"] + len(self.redis.xrange(name, f"({group['last-delivered-id'].decode()}"))
        return found

    def dead(self) -> list[dict[bytes, bytes]]:
        return [fields for _, fields in self.redis.xrange(f"{PREFIX}:dead")]

    @contextmanager
    def stream(self, **wanted: object) -> Iterator[Stream]:
        """A run in this process."""
        with open_stream(self.settings, self.source(), self.wanted(**wanted), StreamMetrics(None), _now) as stream:
            yield stream

    def wanted(self, **more: object) -> StreamOptions:
        return StreamOptions(**({"encoder": str(self.encoder), "images": self.settings.file.parent} | more))  # type: ignore[arg-type]

    def take_in(self, **wanted: object) -> StreamCounts:
        """Everything that has been sent."""
        with self.stream(**wanted) as stream:
            return stream.run(lambda: self.left() == stream_pending(self))


def stream_pending(shop: Shop) -> int:
    """Messages that are taken and not acknowledged."""
    groups = [one for kind in ("products", "clicks") for one in shop.redis.xinfo_groups(f"{PREFIX}:{kind}")]
    return sum(group["pending"] for group in groups)


def deployment(folder: Path, server: servers.RedisServer) -> Settings:
    file = folder / "feature_store.yaml"
    file.write_text(YAML.format(folder=folder, address=server.address))
    return settings.load(file)


def make(folder: Path, server: servers.RedisServer, encoder: Path) -> Shop:
    """A deployment with the project's own views applied."""
    from feature_repo import definitions
    from feature_repo.stores.feature_store import open_feature_store

    made = deployment(folder, server)
    open_feature_store(made).apply([getattr(definitions, name) for name in definitions.__all__])
    return Shop(made, server, encoder)


def start(shop: Shop, *, batch: int, every: float) -> BaseProcess:
    """A streaming process; SIGTERM ends it, everything taken committed."""
    process = context.Process(target=_run, args=(shop.settings.file, shop.url, shop.wanted(batch=batch, every=every)))
    process.start()
    return process


def _run(file: Path, url: str, wanted: StreamOptions) -> None:
    ending = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ending.set())
    deployment = settings.load(file)
    with run_log.record_run(deployment, "stream", now=_now()):
        source = RedisSource(parse_url(url), PREFIX)
        with open_stream(deployment, source, wanted, StreamMetrics(None), _now) as stream:
            stream.run(ending.is_set)


def _now() -> datetime:
    return datetime.now(UTC)
