"""`consume serve`."""

import os
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, TextIO

import typer

from consumers.serving.limits import Limits
from feature_repo import config
from feature_repo.console import StoreOption
from feature_repo.errors import UsageError, VitrineError

if TYPE_CHECKING:
    from consumers.serving.auth import Door

LAST_PORT = 65_535


def serve(
    host: Annotated[
        str, typer.Option(help="Address to listen at; beyond the loopback only with a token.")
    ] = "127.0.0.1",
    flight_port: Annotated[
        int, typer.Option(min=-1, max=LAST_PORT, help="Arrow Flight; 0 takes any that is free, -1 serves no Flight.")
    ] = 8815,
    http_port: Annotated[
        int, typer.Option(min=-1, max=LAST_PORT, help="HTTP; 0 takes any that is free, -1 serves no HTTP.")
    ] = 8080,
    token_file: Annotated[
        Path | None, typer.Option(help="File of one line: the bearer token that every caller must show.")
    ] = None,
    tls_certificate: Annotated[Path | None, typer.Option(help="PEM with the certificate chain: serve TLS.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="PEM with its private key.")] = None,
    max_ids: Annotated[int, typer.Option(min=1, help="Candidates of one request.")] = Limits.ids,
    workers: Annotated[int, typer.Option(min=1, help="Requests in work at once.")] = Limits.workers,
    waiting: Annotated[int, typer.Option(min=0, help="Requests that wait; the next is refused.")] = Limits.waiting,
    streams: Annotated[int, typer.Option(min=1, help="Flight streams open at once.")] = Limits.streams,
    processes: Annotated[
        int,
        typer.Option(
            min=1, help="Serve Flight by so many, at ports from --flight-port on; each with --workers of its own."
        ),
    ] = 1,
    deadline: Annotated[
        float, typer.Option(min=0.001, help="Seconds after which a request is given up.")
    ] = Limits.deadline,
    access_log: Annotated[
        str, typer.Option(help="File for a line of JSON per request; - is standard output, empty keeps none.")
    ] = "-",
    log_served: Annotated[
        Path | None, typer.Option(help="File for a sample of the rows served: for `consume consistency --served-log`.")
    ] = None,
    log_served_one_in: Annotated[int, typer.Option(min=1, help="Of so many readings of a view, one key.")] = 1_000,
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

    One process uses about one core. Of several each has a Flight port, and the first alone serves HTTP; one that dies
    is started again.
    """
    if flight_port < 0 and http_port < 0:
        raise UsageError("--flight-port and --http-port are both -1: nothing would be served")
    if (tls_certificate is None) != (tls_key is None):
        raise UsageError("--tls-certificate and --tls-key go together")
    if watch is None and (objectives or impressions or lift_report):
        raise UsageError("--objectives, --impressions and --lift-report are for --watch: give it too, as 5m")
    if processes > 1 and flight_port < 0:
        raise UsageError("--processes are of Flight, and --flight-port is -1")
    _refuse_overlap(flight_port, http_port, processes)
    # A request is small: threads within it would only wait for each other. OpenBLAS reads this when numpy is imported.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from consumers.serving.auth import Certificate, Door, read_token

    certificate = Certificate(tls_certificate, tls_key) if tls_certificate and tls_key else None
    wanted = _Wanted(
        door=Door(host, read_token(token_file), certificate),
        flight_port=flight_port,
        http_port=http_port,
        limits=Limits(ids=max_ids, workers=workers, waiting=waiting, deadline=deadline, streams=streams),
        access_log=access_log,
        log_served=log_served,
        log_served_one_in=log_served_one_in,
        watch=watch,
        objectives=objectives,
        impressions=impressions,
        lift_report=lift_report,
        deployment=config.load(store),
    )
    if processes == 1:
        _serve(wanted, lambda addresses: _say([addresses]))
    else:
        _serve_several(wanted, processes)


@dataclass(frozen=True)
class _Wanted:
    """What was typed; each process is given it."""

    door: "Door"
    flight_port: int
    http_port: int
    limits: Limits
    access_log: str
    log_served: Path | None
    log_served_one_in: int
    watch: str | None
    objectives: Path | None
    impressions: Path | None
    lift_report: Path | None
    deployment: config.Settings
    metrics: str | None = None
    """The folder of all processes' metrics, where there are several."""


def _refuse_overlap(flight_port: int, http_port: int, processes: int) -> None:
    last = flight_port + processes - 1
    if flight_port > 0 and last > LAST_PORT:
        raise UsageError(f"--flight-port {flight_port} leaves no {processes} ports up to {LAST_PORT}")
    if 0 < flight_port <= http_port <= last:
        raise UsageError(f"--http-port {http_port} is also a port of Flight, which takes {flight_port} to {last}")


def _serve_several(wanted: _Wanted, count: int) -> None:
    """Flight by all, the rest by the first: there are one page and one watch, and its /metrics are of all."""
    from prometheus_client import multiprocess

    from consumers.serving import metrics
    from consumers.serving import supervisor as processes
    from consumers.serving.auth import see_free
    from consumers.serving.ending import heeded

    ports = processes.ports(wanted.door.host, wanted.flight_port, count)
    http = wanted.http_port or processes.ports(wanted.door.host, 0, 1)[0]  # the same after it has died
    see_free(wanted.door.host, flight=ports, http=http)
    with heeded() as ending, TemporaryDirectory(prefix="vitrine-metrics-") as folder:
        os.environ[metrics.SHARED] = folder
        first = replace(wanted, flight_port=ports[0], http_port=http, metrics=folder)
        others = [replace(first, flight_port=port, http_port=-1, watch=None) for port in ports[1:]]
        processes.supervise(
            [partial(_serve, one) for one in (first, *others)],
            _say,
            ending,
            lambda pid: multiprocess.mark_process_dead(pid, folder),  # type: ignore[no-untyped-call]
        )


def _serve(wanted: _Wanted, on_ready: Callable[[dict[str, str]], None]) -> None:
    """Serve until told to end."""
    from consumers.monitoring.consistency.served_log import ServedLog
    from consumers.online.reader import OnlineReader
    from consumers.serving import server
    from consumers.serving.access_log import AccessLog
    from consumers.serving.auth import see_free
    from consumers.serving.ending import heeded
    from consumers.serving.executor import Desk
    from consumers.serving.metrics import Metrics
    from feature_repo.online.open_store import open_configured_table

    see_free(wanted.door.host, flight=[wanted.flight_port], http=wanted.http_port)
    table = open_configured_table(wanted.deployment)
    if table is None:
        raise VitrineError(f"{wanted.deployment.file}: there is no online store to serve from yet; run `feast apply`")
    metrics = Metrics(wanted.metrics)
    with heeded() as ending, ExitStack() as open_:
        routers = []
        if wanted.watch is not None:
            from consumers.monitoring import status_page
            from consumers.monitoring.freshness.objectives import load
            from consumers.monitoring.prometheus import Collector
            from consumers.monitoring.watcher import Watcher, checks
            from feature_repo.durations import parse_age

            every = parse_age(wanted.watch)
            if wanted.objectives:
                load(wanted.objectives)  # each check reads them anew; a mistake in them is better said now than there
            looks = checks(wanted.deployment.file, every, objectives=wanted.objectives, impressions=wanted.impressions)
            watcher = open_.enter_context(Watcher(looks, _now))
            metrics.registry.register(Collector(watcher.states))
            routers.append(status_page.router(watcher.states, _now, lift_report=wanted.lift_report))
        stream = open_.enter_context(_stream(wanted.access_log))
        if wanted.log_served is not None:
            table.on_read = open_.enter_context(ServedLog(wanted.log_served, wanted.log_served_one_in))
        reader = open_.enter_context(OnlineReader.from_table(table))
        server.serve(
            Desk(reader, limits=wanted.limits, metrics=metrics, log=AccessLog(stream)),
            wanted.door,
            routers=routers,
            flight_port=None if wanted.flight_port < 0 else wanted.flight_port,
            http_port=None if wanted.http_port < 0 else wanted.http_port,
            ending=ending,
            on_ready=on_ready,
        )


def _say(addresses: list[dict[str, str]]) -> None:
    said = [f"{protocol} at {address}" for one in addresses for protocol, address in one.items()]
    typer.echo("serving " + ", ".join(said), err=True)


def _now() -> datetime:
    return datetime.now(UTC)


def _stream(access_log: str) -> AbstractContextManager[TextIO | None]:
    """Where the lines go; they are closed at the end."""
    if access_log in ("", "-"):
        return nullcontext(sys.stdout if access_log else None)
    return Path(access_log).open("a", encoding="ascii")
