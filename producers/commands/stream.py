"""`produce stream`."""

import signal
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from feature_repo import config
from feature_repo.console import StoreOption


def stream(
    encoder: Annotated[str, typer.Option(help="The encoder's checkpoint, as of `produce embeddings`.")],
    source: Annotated[
        str, typer.Option(help="The Redis that has the streams: redis://host:6379/0.")
    ] = "redis://localhost:6379",
    prefix: Annotated[str, typer.Option(help="What the streams' names begin with.")] = "vitrine",
    images: Annotated[
        Path, typer.Option(file_okay=False, exists=True, help="Where relative paths of pictures start.")
    ] = Path("."),
    labels: Annotated[
        Path | None, typer.Option(help="As of `produce tags`: tag new products by the taggers learned from these.")
    ] = None,
    abstain: Annotated[float, typer.Option(min=0.0, max=1.0, help="As of `produce tags`.")] = 0.5,
    impressions: Annotated[
        Path | None, typer.Option(help="The log: give new products what their nearest had earned in it so far.")
    ] = None,
    accept_changed: Annotated[
        bool,
        typer.Option("--accept-changed", help="Go on where the newest vectors are of another encoder."),
    ] = False,
    batch: Annotated[int, typer.Option(min=1, help="Messages of a micro-batch.")] = 64,
    commit_every: Annotated[float, typer.Option(min=0.1, max=60.0, help="Seconds between offline commits.")] = 20.0,
    metrics_port: Annotated[
        int, typer.Option(min=-1, max=65_535, help="Prometheus's metrics on the loopback; -1 serves none.")
    ] = 9109,
    store: StoreOption = None,
) -> None:
    """Take in products and clicks from Redis Streams as they come: features online at once, offline within a minute.

    Ends on SIGTERM or SIGINT, everything taken committed. A run that was killed loses nothing: start it again.
    """
    from feature_repo import run_log
    from feature_repo.online.redis_connection import parse_url
    from producers.streaming.metrics import StreamMetrics
    from producers.streaming.open_stream import StreamOptions, open_stream
    from producers.streaming.redis_source import RedisSource

    deployment, ending = config.load(store), threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ending.set())
    metrics = StreamMetrics(None if metrics_port < 0 else metrics_port)
    wanted = StreamOptions(
        encoder, images, labels, abstain, impressions, batch=batch, every=commit_every, accept_changed=accept_changed
    )
    with run_log.record_run(deployment, "stream", now=datetime.now(UTC)) as run:
        carrier = RedisSource(parse_url(source), prefix)
        with open_stream(deployment, carrier, wanted, metrics, lambda: datetime.now(UTC)) as going:
            run.set_model(going.makers.encoder.version)
            if going.makers.codebook is None:
                typer.echo("no codebook of this encoder: new products get no codes; see `produce codes`", err=True)
            typer.echo(f"streaming {prefix}:products and {prefix}:clicks of {source.rpartition('@')[2]}", err=True)
            done = going.run(ending.is_set)
        run.add_counts(messages=done.messages, again=done.again, **done.added)
        run.add_quarantined(dict(done.refused + done.mended))
    typer.echo(done)
