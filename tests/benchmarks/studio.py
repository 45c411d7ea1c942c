"""Time of requests for captions, with several clients at once.

    python -m tests.benchmarks.studio --folder FOLDER [--record]

Makes a shop, an encoder with a language head, vectors and tags in a folder as tests/benchmarks/captions.py does, or
goes on with what is there; starts `produce studio` as a process of its own; and lets the clients, which are threads of
this process, ask one request after the other. Kinds of requests take turns, ROUNDS times. A product is asked for once
only, so that nothing of it is in memory. --record writes STUDIO.md.
"""

import itertools
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import httpx
import numpy as np
import typer

from feature_repo import schema
from feature_repo.config import Settings
from feature_repo.offline import delta
from tests.benchmarks import harness
from tests.benchmarks.captions import ROOT, prepare
from tests.deployments import clean_environment
from tests.servers import free_port

TABLE = Path(__file__).parent / "STUDIO.md"
ROUNDS = 3
KINDS = ("product, plain", "product, lively", "picture, plain", "picture, lively")


def main(
    folder: Annotated[Path, typer.Option(help="Folder of the shop and its encoder.")],
    products: Annotated[int, typer.Option(help="Products of a shop that is not there yet.")] = 8_000,
    clients: Annotated[int, typer.Option(min=1, help="Clients at the same time.")] = 4,
    requests: Annotated[int, typer.Option(min=1, help="Requests of each client, kind and round.")] = 40,
    record: harness.RecordOption = False,
) -> None:
    """Print percentiles in milliseconds."""
    folder = folder.resolve()
    settings = prepare(folder, products, "zh")
    seconds: dict[str, list[float]] = {kind: [] for kind in KINDS}
    lines: dict[str, list[int]] = {kind: [] for kind in KINDS}
    pictures = read_pictures(settings, folder)
    if len(pictures) < len(KINDS) * ROUNDS * clients * requests:
        raise SystemExit(f"{len(pictures):,} products with a picture do not do; give fewer --requests")
    with serve(folder, settings) as url, ThreadPoolExecutor(clients) as pool:
        ask(url, "picture, lively", [pictures.pop() for _ in range(10)])  # what loads late
        for kind in KINDS * ROUNDS:
            shares = [[pictures.pop() for _ in range(requests)] for _ in range(clients)]
            for taken, written in pool.map(ask, itertools.repeat(url), itertools.repeat(kind), shares):
                seconds[kind] += taken
                lines[kind] += written
    command = f"python -m tests.benchmarks.studio --folder FOLDER --clients {clients} --requests {requests} --record"
    text = render(seconds, lines, clients, command)
    print(text)
    if record:
        TABLE.write_text(text)


def read_pictures(settings: Settings, folder: Path) -> list[tuple[str, Path]]:
    """Return the products that have a picture, in a random order: id and file."""
    columns = [schema.PRODUCT_ID, "image"]
    rows = delta.read(settings.table(schema.CATALOGUE_TABLE), columns).to_pylist()
    shown = {row[schema.PRODUCT_ID]: Path(row["image"]) for row in rows if row["image"]}
    usable = [(one, file) for one, file in sorted(shown.items()) if file.is_file() and file.stat().st_size > 500]
    return [usable[number] for number in np.random.default_rng(0).permutation(len(usable))]


@contextmanager
def serve(folder: Path, settings: Settings) -> Iterator[str]:
    """Serve a studio until the end of the block; yield its address."""
    port = free_port()
    options = f"--encoder writer --words shop/truth/words.parquet --labels labels.parquet --port {port}"
    command = [sys.executable, "-m", "producers", "studio", *options.split(), "--access-log", ""]
    command += ["--store", str(settings.file)]
    environment = clean_environment() | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, cwd=folder, env=environment) as process:
        url = f"http://127.0.0.1:{port}"
        while True:
            try:
                httpx.get(f"{url}/readyz").raise_for_status()
                break
            except httpx.HTTPError:
                if process.poll() is not None:
                    raise SystemExit("the studio did not start") from None
                time.sleep(0.2)
        try:
            yield url
        finally:
            process.terminate()


def ask(url: str, kind: str, products: list[tuple[str, Path]]) -> tuple[list[float], list[int]]:
    """Return the seconds of some requests, one after the other, and the number of lines in each answer."""
    thing, style = kind.split(", ")
    seconds, lines = [], []
    with httpx.Client(base_url=url, timeout=60) as client:
        for product_id, file in products:
            content: dict[str, Any] = {"json": {"product_id": product_id, "style": style}}
            if thing == "picture":
                content = {"data": {"style": style}, "files": {"picture": ("picture", file.read_bytes())}}
            started = time.perf_counter()
            answer = client.post("/v1/captions", **content)
            seconds.append(time.perf_counter() - started)
            lines.append(len(answer.raise_for_status().json()["candidates"]))
    return seconds, lines


def render(seconds: dict[str, list[float]], lines: dict[str, list[int]], clients: int, command: str) -> str:
    """Return STUDIO.md."""
    made = harness.describe_machine()
    rows = [
        "# Captions live",
        "",
        "Written by the command named, never by hand. The time of `POST /v1/captions` in milliseconds, asked by",
        f"{clients} clients at once on the same machine; four lines were asked for. Pictures are those of products,",
        "sent as files, so that the taggers have to say what they show. `answered` is the share of requests for which",
        "something was sure enough to be stated.",
        "",
        "| request | p50 | p95 | p99 | requests | answered |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for kind, taken in seconds.items():
        p50, p95, p99 = np.percentile(np.array(taken) * 1e3, (50, 95, 99))
        answered = np.mean(np.array(lines[kind]) > 0)
        rows.append(f"| {kind} | {p50:.0f} | {p95:.0f} | {p99:.0f} | {len(taken):,} | {answered:.3f} |")
    rows += ["", f"`{command}`: {made['commit']}, {made['date']}, {made['machine']}"]
    return "\n".join(rows) + "\n"


if __name__ == "__main__":
    typer.run(main)
