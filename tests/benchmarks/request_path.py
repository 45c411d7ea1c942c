"""Count the project files that one request runs through, which a reader has to open to follow it.

    python -m tests.benchmarks.request_path          counts
    python -m tests.benchmarks.request_path --files  also lists them

Each path runs twice. The first run does the imports and opens connections; the second is traced, in all threads. A file
counts if one of its lines is executed. Test files do not count.

    serve flight, serve http   a request with affinity to a server on Redis, until the response is sent
    training join              get_historical_features of three views in Delta tables, as a normalised training set
    image to row               from catalogue rows with image bytes in a Delta table to embedding rows
"""

import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import requests
import typer
from feast import FeatureStore
from PIL import Image

from consumers.online import OnlineReader
from consumers.serving.client import FlightClient, encode_request
from consumers.serving.flight import FlightServer
from feature_repo import schema
from feature_repo.offline import delta
from producers.encoders import load, pipeline
from tests.benchmarks.serving.deployment import SERVICE, open_deployments
from tests.benchmarks.serving.rows import make_tables
from tests.consumers.serving.running import serving
from tests.producers.encoders import checkpoints

ROOT = Path(__file__).parent.parent.parent
PACKAGES = ("consumers", "feature_repo", "producers")
PRODUCTS, USERS = 200, 10


class FileTracer:
    """Collects the files whose lines are executed while `is_on`, in all threads started under `threads`."""

    def __init__(self) -> None:
        self.is_on = False
        self.files: set[str] = set()

    def __call__(self, frame: FrameType, event: str, argument: Any) -> Any:
        if self.is_on:
            self.files.add(frame.f_code.co_filename)
        return self

    @contextmanager
    def threads(self) -> Iterator[None]:
        """Trace this thread and the threads that it starts."""
        threading.settrace(self)
        sys.settrace(self)
        try:
            yield
        finally:
            threading.settrace(None)  # type: ignore[arg-type]
            sys.settrace(None)

    def trace(self, call: Callable[[], object]) -> list[str]:
        """Call twice and return the project files of the second call."""
        call()
        self.files, self.is_on = set(), True
        call()
        self.is_on = False
        files = (Path(name) for name in self.files)
        inside = [file.relative_to(ROOT) for file in files if file.is_relative_to(ROOT)]
        return sorted(str(file) for file in inside if file.parts[0] in PACKAGES)


def serve_paths(tracer: FileTracer, address: str) -> dict[str, list[str]]:
    do_exchange = FlightServer.do_exchange

    def traced(self: FlightServer, *arguments: Any) -> None:
        sys.settrace(tracer)  # Flight's threads are not started by Python
        do_exchange(self, *arguments)

    FlightServer.do_exchange = traced  # type: ignore[method-assign]
    products = [f"product-{i:06d}" for i in range(50)]
    paths = {}
    with OnlineReader(f"redis://{address}", "ours") as reader, tracer.threads(), serving(reader) as served:
        sys.settrace(None)  # the client's lines are not the server's
        body = encode_request(SERVICE, "user-000001", products)
        paths["serve http"] = tracer.trace(
            lambda: requests.post(f"{served.http}/v1/features", data=body, timeout=60).raise_for_status()
        )
        with FlightClient(served.flight, SERVICE) as client:
            paths["serve flight"] = tracer.trace(lambda: client.fetch("user-000001", products))
    FlightServer.do_exchange = do_exchange  # type: ignore[method-assign]
    return paths


def training_path(tracer: FileTracer, deployment: Path) -> list[str]:
    for table, rows in make_tables(PRODUCTS, USERS).items():
        delta.append(deployment / "offline" / table, rows)
    store = FeatureStore(repo_path=str(deployment))
    now = datetime.now(UTC)
    entities = pa.table(
        {
            "user_id": [f"user-{i % USERS:06d}" for i in range(50)],
            "product_id": [f"product-{i:06d}" for i in range(50)],
            "event_timestamp": pa.array([now] * 50, pa.timestamp("us", tz="UTC")),
        }
    )
    features = ["product_embedding:fused_vector", "product_tags:category", "user_interest:interest_vector"]
    with tracer.threads():
        return tracer.trace(lambda: store.get_historical_features(entities, features).to_normalised())


def image_path(tracer: FileTracer, folder: Path) -> list[str]:
    checkpoints.clip(folder / "encoder")
    encoder = load(str(folder / "encoder"), device="cpu")
    now = datetime.now(UTC)
    catalogue = pa.Table.from_pylist([product(i, now) for i in range(4)], schema.CATALOGUE)
    delta.append(folder / "catalogue", catalogue)

    def encode() -> None:
        rows = delta.open_dataset(folder / "catalogue").to_table()
        with ThreadPoolExecutor(1) as pool:  # instead of processes: a thread can be traced
            pipeline.build_embedding_rows(pipeline.encode_chunk(rows, encoder, pool), encoder, now)  # type: ignore[arg-type]

    with tracer.threads():
        return tracer.trace(encode)


def product(number: int, now: datetime) -> dict[str, Any]:
    file = BytesIO()
    Image.fromarray(np.full((48, 48, 3), 40 * number, np.uint8)).save(file, "PNG")
    values = {"product_id": f"p{number}", "title": "红色连衣裙", "image_bytes": file.getvalue()}
    stamps = {"event_timestamp": now, "created_timestamp": now}
    return dict.fromkeys(schema.CATALOGUE.names) | values | stamps


def main(files: Annotated[bool, typer.Option("--files", help="Print the files too.")] = False) -> None:
    tracer = FileTracer()
    with open_deployments(PRODUCTS, USERS) as (root, server), tempfile.TemporaryDirectory() as folder:
        paths = serve_paths(tracer, server.address)
        paths["training join"] = training_path(tracer, root / "ours")
        paths["image to row"] = image_path(tracer, Path(folder))
    for name, crossed in paths.items():
        print(f"{name:14} {len(crossed):3} files")
        if files:
            print(*(f"    {file}" for file in crossed), sep="\n")


if __name__ == "__main__":
    typer.run(main)
