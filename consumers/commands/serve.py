"""`consume serve`."""

import os
import sys
from contextlib import AbstractContextManager, ExitStack, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, TextIO

import typer

from feature_repo import settings
from feature_repo.console import StoreOption
from feature_repo.errors import UsageError, VitrineError


def serve(
    host: Annotated[
        str, typer.Option(help="Address to listen at; beyond the loopback only with a token.")
    ] = "127.0.0.1",
    flight_port: Annotated[
        int, typer.Option(min=-1, max=65_535, help="Arrow Flight; 0 takes any that is free, -1 serves no Flight.")
    ] = 8815,
    http_port: Annotated[
        int, typer.Option(min=-1, max=65_535, help="HTTP; 0 takes any that is free, -1 serves no HTTP.")
    ] = 8080,
    token_file: Annotated[
        Path | None, typer.Option(help="File of one line: the bearer token that every caller must show.")
    ] = None,
    tls_certificate: Annotated[Path | None, typer.Option(help="PEM with the certificate chain: serve TLS.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="PEM with its private key.")] = None,
    max_ids: Annotated[int, typer.Option(min=1, help="Candidates of one request.")] = 1_000,
    workers: Annotated[int, typer.Option(min=1, help="Requests in work at once.")] = 4,
    waiting: Annotated[int, typer.Option(min=0, help="Requests that wait; the next is refused.")] = 60,
    streams: Annotated[int, typer.Option(min=1, help="Flight streams open at once.")] = 64,
    deadline: Annotated[float, typer.Option(min=0.001, help="Seconds after which a request is given up.")] = 1.0,
    access_log: Annotated[
        str, typer.Option(help="File for a line of JSON per request; - is standard output, empty keeps none.")
    ] = "-",
    watch: Annotated[
        str | None,
        typer.Option(help="Check freshness, drift, consistency so often (5m); see /status and /metrics."),
    ] = None,
    objectives: Annotated[Path | None, typer.Option(help="With --watch: TOML of what is wanted of freshness.")] = None,
    impressions: Annotated[Path | None, typer.Option(help="With --watch: Parquet of what was shown.")] = None,
    lift_report: Annotated[Path | None, typer.Option(help="With --watch: report.html, linked at /status.")] = None,
    store: StoreOption = None,
) -> None:
    """Serve features of a user and candidates over Arrow Flight and HTTP (docs/serving.md).

    One process uses about one core; for more, start several at ports of their own behind a balancer.
    """
    if flight_port < 0 and http_port < 0:
        raise UsageError("--flight-port and --http-port are both -1: nothing would be served")
    if (tls_certificate is None) != (tls_key is None):
        raise UsageError("--tls-certificate and --tls-key go together")
    if watch is None and (objectives or impressions or lift_report):
        raise UsageError("--objectives, --impressions and --lift-report are for --watch: give it too, as 5m")
    # A request is small: threads within it would only wait for each other. OpenBLAS reads this when numpy is imported.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from consumers.online import OnlineReader
    from consumers.serving import door, server
    from consumers.serving.access_log import AccessLog
    from consumers.serving.desk import Desk, Limits
    from consumers.serving.metrics import Metrics
    from feature_repo.online import open_online

    certificate = door.Certificate(tls_certificate, tls_key) if tls_certificate and tls_key else None
    entrance = door.Door(host, door.read_token(token_file), certificate)
    deployment = settings.load(store)
    table = open_online(deployment)
    if table is None:
        raise VitrineError(f"{deployment.file}: there is no online store to serve from yet; run `feast apply`")
    limits = Limits(ids=max_ids, workers=workers, waiting=waiting, deadline=deadline)
    metrics = Metrics()
    with ExitStack() as open_:
        routers = []
        if watch is not None:
            from consumers.monitoring import page
            from consumers.monitoring.ages import parse_age
            from consumers.monitoring.exported import Collector
            from consumers.monitoring.watcher import Watcher, checks

            looks = checks(deployment.file, parse_age(watch), objectives=objectives, impressions=impressions)
            watcher = open_.enter_context(Watcher(looks, _now))
            metrics.registry.register(Collector(watcher))
            routers.append(page.router(watcher, _now, lift_report=lift_report))
        stream = open_.enter_context(_stream(access_log))
        reader = open_.enter_context(OnlineReader.of_table(table))
        server.serve(
            Desk(reader, limits=limits, metrics=metrics, log=AccessLog(stream)),
            entrance,
            routers=routers,
            flight_port=None if flight_port < 0 else flight_port,
            http_port=None if http_port < 0 else http_port,
            streams=streams,
            on_ready=lambda at: typer.echo(
                "serving " + ", ".join(f"{protocol} at {address}" for protocol, address in at.items()), err=True
            ),
        )


def _now() -> datetime:
    return datetime.now(UTC)


def _stream(access_log: str) -> AbstractContextManager[TextIO | None]:
    """Where the lines go; they are closed at the end."""
    if access_log in ("", "-"):
        return nullcontext(sys.stdout if access_log else None)
    return Path(access_log).open("a", encoding="ascii")
