"""A deployment on Redis, messages for it, and streaming processes, forked from a server with all modules imported."""

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
from feature_repo import config, run_log
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
    """A deployment for streaming."""

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
        """Send a valid product with some fields replaced, under the message id `sent_as`; `*` lets Redis choose."""
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
        """Deliver all messages to the stream's consumer and drop them, like a process that is killed after reading."""
        source = self.source()
        while source.read_new(100, 0.001):
            pass

    def left(self) -> int:
        """Return the number of messages that are not acknowledged."""
        count = 0
        for kind in ("products", "clicks"):
            name = f"{PREFIX}:{kind}"
            groups = self.redis.xinfo_groups(name) if self.redis.exists(name) else []
            if not groups:
                count += self.redis.xlen(name)
                continue
            group = groups[0]
            count += group["pending"] + len(self.redis.xrange(name, f"({group['last-delivered-id'].decode()}"))
        return count

    def dead(self) -> list[dict[bytes, bytes]]:
        return [fields for _, fields in self.redis.xrange(f"{PREFIX}:dead")]

    @contextmanager
    def stream(self, **options: object) -> Iterator[Stream]:
        """Open a run in this process."""
        with open_stream(self.settings, self.source(), self.options(**options), StreamMetrics(None), _now) as stream:
            yield stream

    def options(self, **more: object) -> StreamOptions:
        return StreamOptions(**({"encoder": str(self.encoder), "image_folder": self.settings.file.parent} | more))  # type: ignore[arg-type]

    def process_all(self, **options: object) -> StreamCounts:
        """Process all messages that have been sent."""
        with self.stream(**options) as stream:
            return stream.run(lambda: self.left() == stream_pending(self))


def stream_pending(shop: Shop) -> int:
    """Return the number of messages that are delivered and not acknowledged."""
    groups = [one for kind in ("products", "clicks") for one in shop.redis.xinfo_groups(f"{PREFIX}:{kind}")]
    return sum(group["pending"] for group in groups)


def deployment(folder: Path, server: servers.RedisServer) -> Settings:
    file = folder / "feature_store.yaml"
    file.write_text(YAML.format(folder=folder, address=server.address))
    return config.load(file)


def make(folder: Path, server: servers.RedisServer, encoder: Path) -> Shop:
    """Create a deployment, and apply the project's views."""
    from feature_repo import definitions
    from feature_repo.stores.feature_store import open_feature_store

    settings = deployment(folder, server)
    open_feature_store(settings).apply([getattr(definitions, name) for name in definitions.__all__])
    return Shop(settings, server, encoder)


def start(shop: Shop, *, batch_size: int, commit_seconds: float) -> BaseProcess:
    """Start a streaming process. SIGTERM ends it after everything that it read is committed."""
    process = context.Process(
        target=_run,
        args=(shop.settings.file, shop.url, shop.options(batch_size=batch_size, commit_seconds=commit_seconds)),
    )
    process.start()
    return process


def _run(file: Path, url: str, options: StreamOptions) -> None:
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    settings = config.load(file)
    with run_log.record_run(settings, "stream", now=_now()):
        source = RedisSource(parse_url(url), PREFIX)
        with open_stream(settings, source, options, StreamMetrics(None), _now) as stream:
            stream.run(stop.is_set)


def _now() -> datetime:
    return datetime.now(UTC)
