"""A Flight server that always returns the same table, to measure the round trip alone."""

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
    """Start a server that returns one table with our columns, and yield a function that makes a round trip."""
    example = client.fetch(*draw()).candidates
    with pa.OSFile(str(root / "table.arrow"), "wb") as file, pa.ipc.new_file(file, example.schema) as writer:
        writer.write_batch(example)
    command = [sys.executable, "-m", "tests.benchmarks.serving", "echo", str(root / "table.arrow")]
    with stop_on_exit(subprocess.Popen(command, stdout=subprocess.PIPE, text=True)) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        with flight.connect(f"grpc://127.0.0.1:{port}") as connection:
            writer, reader = connection.do_exchange(flight.FlightDescriptor.for_command(b""))

            def round_trip(body: bytes) -> object:
                writer.write_metadata(pa.py_buffer(body))
                return reader.read_chunk()

            yield round_trip
            writer.close()


def echo(file: Path) -> None:
    """Run the bare server with the table in `file`."""
    with pa.ipc.open_file(file) as reader:
        batch = reader.get_batch(0)

    class BareServer(flight.FlightServerBase):
        def do_exchange(self, context: Any, descriptor: Any, reader: Any, writer: Any) -> None:
            writer.begin(batch.schema)
            for _ in reader:
                writer.write_batch(batch)

    server = BareServer("grpc://127.0.0.1:0")
    print(server.port, flush=True)
    server.serve()
