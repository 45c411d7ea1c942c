"""A Flight server that always answers with one table: what the round trip alone takes."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.flight as flight

from consumers.serving.client import FlightClient
from tests.benchmarks.serving.options import Draw
from tests.benchmarks.serving.processes import stop_on_exit


@contextmanager
def open_bare_flight(root: Path, client: FlightClient, draw: Draw) -> Iterator[Callable[[bytes], object]]:
    """A Flight server that always answers with one table, of the same columns; gives a round trip to it."""
    example = client.fetch(*draw()).candidates
    with pa.OSFile(str(root / "table.arrow"), "wb") as file, pa.ipc.new_file(file, example.schema) as writer:
        writer.write_batch(example)
    command = [sys.executable, "-m", "tests.benchmarks.serving", "echo", str(root / "table.arrow")]
    with stop_on_exit(subprocess.Popen(command, stdout=subprocess.PIPE, text=True)) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        with flight.connect(f"grpc://127.0.0.1:{port}") as connection:
            writer, reader = connection.do_exchange(flight.FlightDescriptor.for_command(b""))

            def round_trip(asked: bytes) -> object:
                writer.write_metadata(pa.py_buffer(asked))
                return reader.read_chunk()

            yield round_trip
            writer.close()


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
