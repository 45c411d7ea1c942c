"""`produce stream`."""

import os
import signal
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from feature_repo import config
from feature_repo.console import StoreOption
from feature_repo.table_options import with_table_options
from producers.catalogue.decimal_mark import DecimalMark

if TYPE_CHECKING:
    from feature_repo.table_format import TableFormat


@with_table_options
def stream(
    encoder: Annotated[str, typer.Option(help="The encoder's checkpoint, as for `produce embeddings`.")],
    source: Annotated[
        str,
        typer.Option(
            help="The Redis server that holds the streams: redis://host:6379/0. ${NAME} is the value of an environment "
            "variable: a password on the command line would be visible in the list of processes."
        ),
    ] = "redis://localhost:6379",
    prefix: Annotated[str, typer.Option(help="Prefix of the streams' names.")] = "vitrine",
    images: Annotated[
        Path, typer.Option(file_okay=False, exists=True, help="Folder at which relative image paths start.")
    ] = Path(),
    labels: Annotated[
        Path | None, typer.Option(help="Labels, as for `produce tags`: tag new products with their taggers.")
    ] = None,
    abstain: Annotated[float, typer.Option(min=0.0, max=1.0, help="As for `produce tags`.")] = 0.5,
    impressions: Annotated[
        Path | None, typer.Option(help="The log so far: compute the neighbour features of new products from it.")
    ] = None,
    decimal: Annotated[
        DecimalMark, typer.Option(help="Decimal mark of prices, such as 1.299; the other mark separates thousands.")
    ] = DecimalMark.POINT,
    accept_changed: Annotated[
        bool,
        typer.Option("--accept-changed", help="Continue although the newest vectors are of another encoder version."),
    ] = False,
    batch: Annotated[int, typer.Option(min=1, help="Messages in a micro-batch.")] = 64,
    commit_every: Annotated[float, typer.Option(min=0.1, max=60.0, help="Seconds between offline commits.")] = 20.0,
    metrics_port: Annotated[
        int, typer.Option(min=-1, max=65_535, help="Loopback port of the Prometheus metrics; -1 serves none.")
    ] = 9109,
    *,
    table_format: "TableFormat",
    store: StoreOption = None,
) -> None:
    """Process products and clicks from Redis Streams: features are online at once and offline within a minute.

    SIGTERM and SIGINT stop it after everything received is committed. After a kill start it again; nothing is lost.
    """
    from feature_repo import run_log
    from feature_repo.offline.created_time import choose_created_timestamp
    from feature_repo.online.redis_connection import parse_url
    from producers.streaming.metrics import StreamMetrics
    from producers.streaming.open_stream import StreamOptions, open_stream
    from producers.streaming.redis_source import RedisSource
    from producers.streaming.row_writer import KEYS

    settings, stop = config.load(store), threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    metrics = StreamMetrics(None if metrics_port < 0 else metrics_port)
    options = StreamOptions(
        encoder,
        images,
        labels,
        abstain,
        impressions,
        batch_size=batch,
        commit_seconds=commit_every,
        decimal=decimal,
        accept_changed=accept_changed,
        table_format=table_format,
    )
    with run_log.record_run(settings, "stream", now=datetime.now(UTC)) as run:
        address = parse_url(os.path.expandvars(source))
        if "$" not in source and "password" in address.options:
            typer.echo("--source: the list of processes shows this password; write ${NAME} in its place", err=True)
        source_streams = RedisSource(address, prefix)
        clocks = {"this machine's clock": datetime.now(UTC), "the Redis server's clock": source_streams.read_clock()}
        delay = max(
            choose_created_timestamp(settings, list(KEYS), now, clock=clock) - now for clock, now in clocks.items()
        )
        with open_stream(
            settings, source_streams, options, metrics, lambda: datetime.now(UTC) + delay, clock_delay=delay
        ) as running:
            in_production = running.versions.current[0]
            run.set_model(in_production.version)
            if in_production.pipeline.codebook is None:
                typer.echo("no codebook of this encoder, so new products get no codes; run `produce codes`", err=True)
            typer.echo(f"streaming {prefix}:products and {prefix}:clicks of {address}", err=True)
            counts = running.run(stop.is_set)
        run.add_counts(messages=counts.messages, again=counts.redelivered, **counts.added)
        run.add_quarantined(dict(counts.dead_letters + counts.quarantined))
    typer.echo(counts)
