"""Serving one user and 500 candidates: a 128-d vector, tags, codes, the user's interest, affinity; Redis behind.

    python -m tests.benchmarks.serving turns    beside the fast reader plus a bare Flight round trip, and HTTP beside it
    python -m tests.benchmarks.serving stock    beside `feast serve` on stock Feast's Redis store
    python -m tests.benchmarks.serving load     clients at once, for a minute: p50, p99, errors

Server and client are two processes on one machine. Every request names another user and other candidates, drawn at
random. The bare round trip has the same table and the same requests, on an open stream, and its server does nothing.
`feast serve` computes no affinity here: it would want the history's vectors from its caller.
"""

import itertools
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import httpx
import numpy as np
import pyarrow as pa
import pyarrow.flight as flight
import typer
import yaml
from feast import FeatureService, FeatureStore
from threadpoolctl import threadpool_limits

from consumers.affinity import fetch_with_affinity
from consumers.online import OnlineReader
from consumers.serving.client import FlightClient, HttpClient, request
from feature_repo import definitions, schema
from feature_repo.schema import CHILD_AGES, CHILD_GENDERS, HISTORY_LENGTH
from feature_repo.views.affinity import user_product_affinity
from feature_repo.views.product import product_codes, product_embedding, product_tags
from feature_repo.views.user import user_interest
from tests import servers
from tests.benchmarks import harness
from tests.benchmarks.harness import Record, Rounds

app = typer.Typer(help=__doc__, pretty_exceptions_enable=False)
REDIS = "feature_repo.stores.online.RedisOnlineStore"
SERVICE = "served"
LEVELS = 4
DIM = 128
STORED = [product_embedding[["fused_vector", "encoder_version"]], product_tags, product_codes, user_interest]
ENCODER = "bench@1"
SEEDS = itertools.count()

Products = Annotated[int, typer.Option(help="Products in the store.")]
Users = Annotated[int, typer.Option(help="Users in the store, each with a full history.")]
Asked = Annotated[int, typer.Option(help="Candidates of one request.")]
Calls = Annotated[int, typer.Option(help="Requests of a turn; the median is kept.")]
Draw = Callable[[], tuple[str, list[str]]]


@app.command()
def turns(
    products: Products = 10_000,
    users: Users = 500,
    asked: Asked = 500,
    rounds: Rounds = 10,
    calls: Calls = 50,
    record: Record = False,
) -> None:
    """Flight beside its parts, and HTTP beside Flight."""
    draw = drawn(products, users, asked)
    with (
        world(products, users) as (root, server),
        serving(root) as at,
        OnlineReader(f"redis://{server.address}", "ours") as reader,
        FlightClient(at["flight"], SERVICE) as client,
        bare(root, client, draw) as round_trip,
        threadpool_limits(1),  # as in the server: the reader's small products are slower on several threads
    ):
        web = HttpClient(at["http"])
        times: list[float] = []
        sides = {
            "ours": timed(lambda: client.fetch(*draw()), times),
            "reader": lambda: fetch_with_affinity(reader, SERVICE, *draw(), datetime.now(UTC)),
            "bare": lambda: round_trip(request(SERVICE, *draw())),
            "HTTP": lambda: web.fetch(SERVICE, *draw()),
        }
        seconds = harness.take_turns(sides, rounds, calls)
    parts = "the fast reader plus a bare Flight round trip"
    seconds[parts] = [one + other for one, other in zip(seconds["reader"], seconds["bare"], strict=True)]
    medians = {name: statistics.median(values) * 1e3 for name, values in seconds.items()}
    what = f"serve 1 user + {asked} of {products:,} products, {DIM}-d, tags, codes, affinity, "
    note = (
        f"p99 {np.quantile(times, 0.99) * 1e3:.2f} ms; reader {medians['reader']:.2f} ms, bare {medians['bare']:.2f} ms"
    )
    figures = [
        harness.compare(what + "Flight", seconds, "ours", parts, note),
        harness.compare(what + "HTTP Arrow", seconds, "HTTP", "ours", "theirs is Flight"),
    ]
    harness.finish(figures, record)


@app.command()
def stock(
    products: Products = 3_000,
    users: Users = 200,
    asked: Asked = 500,
    rounds: Rounds = 5,
    calls: Calls = 5,
    record: Record = False,
) -> None:
    """Flight, and our JSON, beside `feast serve`."""
    draw = drawn(products, users, asked)
    with (
        world(products, users, stock=True) as (root, _),
        serving(root) as at,
        feast_serve(root) as ask,
        FlightClient(at["flight"], SERVICE) as client,
    ):
        sides = {"ours": lambda: client.fetch(*draw()), "feast serve": lambda: ask(*draw())}
        seconds = harness.take_turns(sides, rounds, calls)
    what = f"serve 1 user + {asked} of {products:,} products, {DIM}-d, tags, codes, affinity, Flight"
    note = "theirs: stock Redis store, JSON over HTTP parsed, no affinity"
    harness.finish([harness.compare(what, seconds, "ours", "feast serve", note)], record)


@app.command()
def load(
    products: Products = 10_000,
    users: Users = 500,
    asked: Asked = 500,
    clients: Annotated[int, typer.Option(help="Clients at once.")] = 8,
    seconds: Annotated[float, typer.Option(help="For how long.")] = 60.0,
    record: Record = False,
) -> None:
    """Clients at once: none may see an error."""
    with world(products, users) as (root, _), serving(root) as at:
        times: list[float] = []
        errors: list[str] = []
        until = time.monotonic() + seconds

        def ask() -> None:
            draw, mine = drawn(products, users, asked), []
            with FlightClient(at["flight"], SERVICE) as client:
                fetch = timed(lambda: client.fetch(*draw()), mine)
                while time.monotonic() < until:
                    try:
                        fetch()
                    except Exception as error:
                        errors.append(str(error))
            times.extend(mine)

        threads = [threading.Thread(target=ask) for _ in range(clients)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    p50, p99 = np.quantile(times, [0.5, 0.99]).tolist()
    figure = harness.Figure(
        name=f"serve 1 user + {asked} candidates, Flight, {clients} clients at once for {seconds:.0f} s, p50",
        seconds=p50,
        against="p99",
        against_seconds=p99,
        ratio=p99 / p50,
        ratio_range=(p99 / p50, p99 / p50),
        rounds=1,
        command=harness.command(),
        note=f"{len(times):,} requests, {len(times) / seconds:,.0f}/s, errors: {len(errors)}",
    )
    harness.finish([figure], record)
    if errors:
        print(errors[0])
        raise typer.Exit(1)


def drawn(products: int, users: int, asked: int) -> Draw:
    """A user and candidates, others at each call."""
    rng = np.random.default_rng(next(SEEDS))
    made = [
        (f"user-{rng.integers(users):06d}", names("product", rng.choice(products, asked, replace=False)))
        for _ in range(64)
    ]
    return itertools.cycle(made).__next__


def names(kind: str, numbers: Any) -> list[str]:
    return [f"{kind}-{number:06d}" for number in np.asarray(numbers).tolist()]


def timed(call: Callable[[], object], times: list[float]) -> Callable[[], object]:
    """The call, whose seconds are kept too."""

    def timing() -> object:
        start = time.perf_counter()
        found = call()
        times.append(time.perf_counter() - start)
        return found

    return timing


@contextmanager
def world(products: int, users: int, *, stock: bool = False) -> Iterator[tuple[Path, servers.RedisServer]]:
    """A folder with a deployment `ours`, and one of stock Feast's store if wanted, whose rows lie in one Redis."""
    with tempfile.TemporaryDirectory() as folder, servers.redis_server(Path(folder) / "redis") as server:
        root = Path(folder)
        rows = tables(products, users)
        fill(root, "ours", {"type": REDIS, "connection_string": server.address}, rows)
        if stock:
            fill(root, "stock", {"type": "redis", "connection_string": server.address}, rows)
        yield root, server


def fill(root: Path, project: str, online_store: Mapping[str, Any], rows: Mapping[str, pa.Table]) -> None:
    """A deployment in the folder `root`/`project`, its online store filled."""
    folder = root / project
    folder.mkdir()
    config = {
        "project": project,
        "provider": "local",
        "registry": {"registry_type": "sql", "path": f"sqlite:///{folder}/registry.db"},
        "offline_store": {
            "type": "feature_repo.stores.offline.DeltaOfflineStore",
            "path": str(folder / "offline"),
        },
        "online_store": dict(online_store),
        "entity_key_serialization_version": 3,
    }
    (folder / "feature_store.yaml").write_text(yaml.safe_dump(config))
    store = FeatureStore(repo_path=str(folder))
    ours = online_store["type"] == REDIS
    objects = [getattr(definitions, name) for name in definitions.__all__ if ours or name in STOCK_KNOWS]
    store.apply(
        [*objects, FeatureService(name=SERVICE, features=[*STORED, *([user_product_affinity] if ours else [])])]
    )
    online = store._get_provider().online_store
    for view, table in rows.items():
        for batch in table.to_batches(2_000):
            if ours:
                online.write_arrow(store.config, store.get_feature_view(view), pa.table(batch))
            else:
                store.write_to_online_store(view, batch.to_pandas())


STOCK_KNOWS = ("product", "user", "product_embedding", "product_tags", "product_codes", "user_interest")


def tables(products: int, users: int) -> dict[str, pa.Table]:
    """Rows of each view, as of an hour ago."""
    rng = np.random.default_rng(0)
    now = datetime.now(UTC) - timedelta(hours=1)
    ids = names("product", range(products))
    stamps = {"encoder_version": ENCODER, "event_timestamp": now, "created_timestamp": now}
    labels = {"child_age": CHILD_AGES, "child_gender": CHILD_GENDERS, "category": [f"baby>{i}" for i in range(40)]}
    tags: dict[str, Any] = {"product_id": ids, "tagger_version": "bench", **stamps}
    for tag, words in labels.items():
        tags[tag] = rng.choice(words, products)
        tags[f"{tag}_probability"] = rng.random(products, np.float32)
    tags["child_age_distribution"] = lists(rng.dirichlet(np.ones(len(CHILD_AGES)), products))
    tags["child_gender_distribution"] = lists(rng.dirichlet(np.ones(len(CHILD_GENDERS)), products))
    codes = rng.integers(0, 256, (products, LEVELS), np.int32)
    said = {
        "product_id": ids,
        "codes": lists(codes),
        "semantic_id": ["-".join(map(str, row)) for row in codes.tolist()],
        "codebook_version": "bench",
        **stamps,
    }
    recent = [names("product", rng.choice(products, HISTORY_LENGTH, replace=False)) for _ in range(users)]
    moments = int(now.timestamp() * 1e6) - np.arange(HISTORY_LENGTH) * 3_600_000_000
    interest = {
        "user_id": names("user", range(users)),
        "interest_vector": lists(unit(rng.standard_normal((users, DIM)))),
        "child_age_mix": lists(rng.dirichlet(np.ones(len(CHILD_AGES)), users)),
        "child_gender_mix": lists(rng.dirichlet(np.ones(len(CHILD_GENDERS)), users)),
        **{f"{kind}_weight": np.ones(users, np.float32) for kind in ("interest", "child_age", "child_gender")},
        "recent_products": recent,
        "recent_times": lists(np.tile(moments, (users, 1))),
        "clicks": [HISTORY_LENGTH] * users,
        **stamps,
    }
    vectors = unit(rng.standard_normal((products, DIM)))
    embedding = {
        "product_id": ids,
        **{f"{kind}_vector": lists(vectors) for kind in ("image", "text", "fused", "similar")},
        "has_image": [True] * products,
        "has_text": [True] * products,
        **stamps,
    }
    return {
        "product_embedding": filled(embedding, schema.PRODUCT_EMBEDDING),
        "product_tags": filled(tags, schema.PRODUCT_TAGS),
        "product_codes": filled(said, schema.PRODUCT_CODES),
        "user_interest": filled(interest, schema.USER_INTEREST),
    }


def filled(columns: Mapping[str, Any], shape: pa.Schema) -> pa.Table:
    count = len(next(iter(columns.values())))
    arrays = []
    for field in shape:
        values = columns.get(field.name)
        if values is None:  # what the online store does not hold
            arrays.append(pa.nulls(count, field.type))
            continue
        one = isinstance(values, str | datetime)
        arrays.append(pa.array([values] * count if one else values).cast(field.type))
    return pa.table(arrays, schema=shape)


def lists(matrix: Any) -> pa.Array:
    flat = pa.array(np.ascontiguousarray(matrix).reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, matrix.shape[1]).cast(pa.list_(flat.type))


def unit(matrix: Any) -> Any:
    return (matrix / np.linalg.norm(matrix, axis=1, keepdims=True)).astype(np.float32)


@contextmanager
def serving(root: Path) -> Iterator[dict[str, str]]:
    """`consume serve` of the deployment, in a process of its own; gives its addresses."""
    line = ["serve", "--store", str(root / "ours" / "feature_store.yaml"), "--flight-port", "0", "--http-port", "0"]
    command = [sys.executable, "-m", "consumers.cli", *line, "--access-log", str(root / "access.log")]
    with ended(subprocess.Popen(command, stderr=subprocess.PIPE, text=True)) as process:
        assert process.stderr is not None
        said = process.stderr.readline()
        assert said.startswith("serving "), said + process.stderr.read()
        yield dict(part.split(" at ") for part in said.strip().removeprefix("serving ").split(", "))


@contextmanager
def feast_serve(root: Path) -> Iterator[Callable[[str, list[str]], object]]:
    """`feast serve` of the stock deployment; gives what asks it."""
    port = servers.free_port()
    command = ["feast", "-c", str(root / "stock"), "serve", "--port", str(port), "--no-access-log"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with (
        ended(subprocess.Popen(command, **quiet, cwd=root / "stock", start_new_session=True), group=True),  # type: ignore[call-overload]
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client,
    ):
        for _ in range(600):
            try:
                client.get("/health")
                break
            except httpx.TransportError:
                time.sleep(0.1)

        def ask(user: str, ids: list[str]) -> object:
            asked = {"feature_service": SERVICE, "entities": {"user_id": [user] * len(ids), "product_id": ids}}
            found = client.post("/get-online-features", json=asked | {"full_feature_names": True})
            assert found.status_code == 200, found.text[:500]
            return found.json()

        yield ask


@contextmanager
def bare(root: Path, client: FlightClient, draw: Draw) -> Iterator[Callable[[bytes], object]]:
    """A Flight server that always answers with one table, of the same columns; gives a round trip to it."""
    example = client.fetch(*draw()).candidates
    with pa.OSFile(str(root / "table.arrow"), "wb") as file, pa.ipc.new_file(file, example.schema) as writer:
        writer.write_batch(example)
    command = [sys.executable, "-m", "tests.benchmarks.serving", "echo", str(root / "table.arrow")]
    with ended(subprocess.Popen(command, stdout=subprocess.PIPE, text=True)) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        with flight.connect(f"grpc://127.0.0.1:{port}") as connection:
            writer, reader = connection.do_exchange(flight.FlightDescriptor.for_command(b""))

            def round_trip(asked: bytes) -> object:
                writer.write_metadata(pa.py_buffer(asked))
                return reader.read_chunk()

            yield round_trip
            writer.close()


@app.command(hidden=True)
def echo(file: Path) -> None:
    """The bare server."""
    with pa.ipc.open_file(file) as opened:
        batch = opened.get_batch(0)

    class Bare(flight.FlightServerBase):
        def do_exchange(self, context: Any, descriptor: Any, reader: Any, writer: Any) -> None:
            writer.begin(batch.schema)
            for _ in reader:
                writer.write_batch(batch)

    server = Bare("grpc://127.0.0.1:0")
    print(server.port, flush=True)
    server.serve()


@contextmanager
def ended(process: "subprocess.Popen[Any]", *, group: bool = False) -> Iterator["subprocess.Popen[Any]"]:
    """A process for as long as it is needed; with its children, if they are its group."""
    try:
        yield process
    finally:
        if group:
            os.killpg(process.pid, signal.SIGTERM)
        else:
            process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()


if __name__ == "__main__":
    app(standalone_mode=False)
