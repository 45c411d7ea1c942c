"""Cost of an upgrade whose candidate is made of kept outputs of towers: the estimate at its start beside what it took.

    OMP_NUM_THREADS=1 python -m tests.benchmarks.backfill [--products 1000000] [--record]

The catalogue and the outputs of the towers are made up: no picture is decoded and no tower is called. A first encoder
is in production; two candidates have the same towers and other heads. The first candidate is rolled back and retired,
so that the estimate of the second knows every step. Each command is a process of its own, with its peak memory.
"""

import os
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import numpy as np
import pyarrow as pa
import typer

from feature_repo import definitions, run_log, schema
from feature_repo.config import Settings
from feature_repo.offline import delta
from feature_repo.stores.feature_store import open_feature_store
from producers.catalogue import row_hash
from producers.embeddings.output_store import FOLDER, IMAGE, TITLE, open_outputs
from producers.encoders import load
from producers.encoders.assembled.assemble import assemble
from producers.encoders.assembled.encoder import AssembledEncoder
from tests.benchmarks.harness import RecordOption, replace_section
from tests.deployments import clean_environment, configure
from tests.producers.encoders import checkpoints
from tests.producers.encoders.assembled.test_assembled import IMAGES, TITLES

HEADING = "Backfill from kept outputs of towers"
UPGRADE_FILE, UPGRADE_TITLE = Path(__file__).parent / "UPGRADE.md", "Encoder upgrades"
STEP = "codes --max-collisions 1 --min-entropy 0 --max-error 1"
ROWS_PER_CHUNK = 50_000
LISTED = datetime(2026, 1, 1, tzinfo=UTC)
DIM = 64


@dataclass(frozen=True)
class CommandCost:
    """What a command took."""

    seconds: float
    cpu_seconds: float
    peak_bytes: int
    """Of the process, with the pages of its mapped files that are in memory: those of the caches, which grow with the
    catalogue and which the system drops when it needs the memory."""
    peak_own_bytes: int
    """Without the pages of mapped files."""
    output: str


def run(settings: Settings, *arguments: str) -> CommandCost:
    """Run `produce` in a process of its own."""
    command = [sys.executable, "-m", "producers", *arguments, "--store", str(settings.file)]
    began = time.perf_counter()
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(command, env=clean_environment(), stdout=output, cwd=settings.file.parent)
        peak_own, own = 0, _read_own_bytes(process.pid)
        while own is not None:
            peak_own = max(peak_own, own)
            time.sleep(0.05)
            own = _read_own_bytes(process.pid)
        _, status, usage = os.wait4(process.pid, 0)
        output.seek(0)
        text = output.read()
    assert status == 0, text
    seconds = time.perf_counter() - began
    return CommandCost(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024, peak_own, text)


def _read_own_bytes(process: int) -> int | None:
    """Return the memory of a process without mapped files; None when it has ended."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    found = [line.split()[1] for line in lines if line.startswith("RssAnon")]
    return int(found[0]) * 1024 if found else None


def make_encoder(folder: Path, name: str, seed: int) -> AssembledEncoder:
    """Return an encoder of the same small towers as the others, with heads of its own."""
    with open_outputs(folder / "elsewhere") as outputs:
        assemble(
            TITLES[:24],
            IMAGES[:24],
            folder / name,
            outputs,
            image_tower=str(folder / "clip"),
            text_tower=str(folder / "clip"),
            head="linear",
            dim=DIM,
            seed=seed,
            progress=lambda stage, done, total: None,
        )
    encoder = load(str(folder / name))
    assert isinstance(encoder, AssembledEncoder)
    return encoder


def write_shop(settings: Settings, encoder: AssembledEncoder, products: int) -> None:
    """Write a catalogue and the outputs of the towers for its contents."""
    rng = np.random.default_rng(0)
    with open_outputs(settings.local / FOLDER) as outputs:
        for start in range(0, products, ROWS_PER_CHUNK):
            numbers = range(start, min(start + ROWS_PER_CHUNK, products))
            ids = pa.array([f"p{number}" for number in numbers])
            titles = pa.array([f"{TITLES[number % len(TITLES)]} {number}" for number in numbers])
            images = [rng.bytes(16) for _ in numbers]
            columns = {
                "product_id": ids,
                "title": titles,
                "image": pa.array([f"/nowhere/{number}.jpg" for number in numbers]),
                "image_hash": pa.array(images, pa.binary()),
                "image_stat": pa.array(images, pa.binary()),
                "fingerprint": pa.array(images, pa.binary()),
                "event_timestamp": pa.repeat(pa.scalar(LISTED, schema.TIMESTAMP), len(ids)),
                "created_timestamp": pa.repeat(pa.scalar(LISTED, schema.TIMESTAMP), len(ids)),
            }
            rows = [columns.get(field.name, pa.nulls(len(ids), field.type)) for field in schema.CATALOGUE]
            table = pa.Table.from_arrays(rows, names=schema.CATALOGUE.names).cast(schema.CATALOGUE)
            delta.append(settings.table(schema.CATALOGUE_TABLE), table)
            hashes = row_hash.hash_contents(pa.chunked_array([titles])).to_pylist()
            for modality, fingerprint, keys, width in (
                (IMAGE, encoder.image_fingerprint, images, encoder.image_width),
                (TITLE, encoder.text_fingerprint, hashes, encoder.text_width),
            ):
                assert fingerprint is not None
                outputs.put(modality, fingerprint, keys, rng.normal(size=(len(ids), width)).astype(np.float16))


def read_estimate(output: str) -> dict[str, float | None]:
    """Return the seconds of each step, and "in all", that `produce upgrade start` printed; None for an unknown time."""
    found = re.findall(r"^  ([a-z ]+): [\d,]+ rows, (?:([\d,]+) s|unknown)", output, re.MULTILINE)
    return {step: float(seconds.replace(",", "")) if seconds else None for step, seconds in found}


@dataclass(frozen=True)
class Comparison:
    """The estimate of one upgrade beside what it took."""

    name: str
    estimated: dict[str, float | None]
    taken: dict[str, float]
    advance: CommandCost

    def format_rows(self) -> list[str]:
        """Return one row of the table for each step, and one for `produce upgrade advance`."""
        rows = []
        for step, seconds in [*self.taken.items(), ("in all", self.advance.seconds)]:
            estimate = self.estimated.get(step)
            texts = ["unknown", ""] if estimate is None else [f"{estimate:,.0f}", f"{estimate / seconds:.2f}"]
            rows.append(f"| {self.name} | {step} | {texts[0]} | {seconds:,.0f} | {texts[1]} |")
        return rows


def upgrade(settings: Settings, name: str) -> Comparison:
    """Start an upgrade to an encoder and write its rows."""
    options = ["upgrade", "start", "--encoder", name, "--former-encoder", "first", "--step", STEP]
    estimated = read_estimate(run(settings, *options).output)
    last = run_log.read_runs(settings)[-1].id
    advance = run(settings, "upgrade", "advance")
    steps = {"backfill": "embeddings", "codes": "codes", "online": "online"}
    taken = {
        steps[one.step]: (one.ended - one.started).total_seconds()
        for one in run_log.read_runs(settings)
        if one.id > last and one.step in steps and one.ended is not None
    }
    return Comparison(name, estimated, taken, advance)


def measure(
    products: Annotated[int, typer.Option(help="Products of the catalogue.")] = 1_000_000,
    folder: Annotated[Path | None, typer.Option(help="An empty folder to work in.", show_default="temporary")] = None,
    record: RecordOption = False,
) -> None:
    """Measure two upgrades of a made-up shop; with --record write them to UPGRADE.md."""
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        settings = configure(Path(temporary))
        checkpoints.clip(Path(temporary) / "clip")
        encoders = [make_encoder(Path(temporary), name, seed) for seed, name in enumerate(("first", "second", "third"))]
        write_shop(settings, encoders[0], products)
        first = run(settings, "embeddings", "--encoder", "first")
        typer.echo(f"first encoder: {first.seconds:,.0f} s, peak {first.peak_own_bytes / 1e6:,.0f} MB of its own")
        run(settings, *STEP.split())
        store = open_feature_store(settings)
        store.apply([getattr(definitions, name) for name in definitions.__all__])
        store.materialize_incremental(LISTED + timedelta(days=1))
        second = upgrade(settings, "second")
        run(settings, "upgrade", "rollback")
        retire = run(settings, "upgrade", "retire", "--grace", "1s")
        third = upgrade(settings, "third")
    rows = [*second.format_rows(), *third.format_rows()]
    lines = [
        f"{products:,} products, vectors of {DIM} values of outputs of {encoders[0].image_width} and "
        f"{encoders[0].text_width} values. The machine had other work; seconds are of the wall clock.",
        "",
        "| upgrade to | step | seconds estimated | seconds taken | ratio |",
        "| --- | --- | --- | --- | --- |",
        *rows,
        "",
        f"Peak memory of `produce upgrade advance` {second.advance.peak_own_bytes / 1e9:.2f} and "
        f"{third.advance.peak_own_bytes / 1e9:.2f} GB, and {second.advance.peak_bytes / 1e9:.2f} and "
        f"{third.advance.peak_bytes / 1e9:.2f} GB with the mapped pages of the caches; "
        f"CPU {second.advance.cpu_seconds:,.0f} and {third.advance.cpu_seconds:,.0f} s; "
        f"`produce upgrade retire` {retire.seconds:,.0f} s.",
    ]
    typer.echo("\n".join(lines))
    if record:
        replace_section(UPGRADE_FILE, UPGRADE_TITLE, HEADING, lines)


if __name__ == "__main__":
    typer.run(measure)
