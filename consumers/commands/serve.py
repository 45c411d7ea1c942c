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
from typing import TYPE_CHECKING, Annotated, TextIO, cast

import typer

from feature_repo import config
from feature_repo.console import LogOptions, StoreOption, current_log_options, print_notice
from feature_repo.errors import NotFoundError, UsageError
from feature_repo.files.private_file import append_private
from feature_repo.serving_limits import ConnectionLimits, ServingLimits
from feature_repo.table_options import with_table_options

if TYPE_CHECKING:
    from fastapi import APIRouter

    from feature_repo.auth import ServerAccess
    from feature_repo.table_format import TableFormat

MAX_PORT = 65_535


@with_table_options
def serve(
    host: Annotated[
        str, typer.Option(help="Address to listen on. Without a token, only a loopback address.")
    ] = "127.0.0.1",
    flight_port: Annotated[
        int, typer.Option(min=-1, max=MAX_PORT, help="Port of Arrow Flight. 0: any free port. -1: no Flight.")
    ] = 8815,
    http_port: Annotated[
        int, typer.Option(min=-1, max=MAX_PORT, help="Port of HTTP. 0: any free port. -1: no HTTP.")
    ] = 8080,
    token_file: Annotated[
        Path | None, typer.Option(help="File with one line: the bearer token that callers must send.")
    ] = None,
    tls_certificate: Annotated[
        Path | None, typer.Option(help="Serve TLS with the certificate chain in this PEM file.")
    ] = None,
    tls_key: Annotated[Path | None, typer.Option(help="PEM file with the certificate's private key.")] = None,
    max_ids: Annotated[
        int, typer.Option(min=1, help="Largest number of candidates in one request.")
    ] = ServingLimits.max_product_ids,
    workers: Annotated[
        int, typer.Option(min=1, help="Requests that are processed at the same time.")
    ] = ServingLimits.workers,
    queue_size: Annotated[
        int,
        typer.Option("--queue-size", min=0, help="Requests that may wait for a worker. Further ones get 429."),
    ] = ServingLimits.queue_size,
    waiting: Annotated[int | None, typer.Option("--waiting", min=0, hidden=True, help="Use --queue-size.")] = None,
    streams: Annotated[
        int, typer.Option(min=1, help="Flight streams that may be open at the same time.")
    ] = ServingLimits.max_streams,
    connections: Annotated[
        int,
        typer.Option(
            min=1, help="HTTP connections that may be open at the same time; fewer if `ulimit -Hn` allows only those."
        ),
    ] = ConnectionLimits.max_connections,
    processes: Annotated[
        int,
        typer.Option(
            min=1,
            help="Number of processes that serve Flight, on consecutive ports starting with --flight-port. HTTP has "
            "one more process. Each has --workers, --queue-size and --streams of its own.",
        ),
    ] = 1,
    deadline: Annotated[
        float, typer.Option(min=0.001, help="Time limit of a request in seconds.")
    ] = ServingLimits.deadline_seconds,
    access_log: Annotated[
        str,
        typer.Option(help="File for one line of JSON per request. - is standard output. An empty text writes no log."),
    ] = "-",
    refresh: Annotated[
        float,
        typer.Option(min=0.0, help="Seconds until a change of views, services or the encoder in production is seen."),
    ] = 60.0,
    log_served: Annotated[
        Path | None,
        typer.Option(help="File for a sample of the rows served. `consume consistency --served-log` checks them."),
    ] = None,
    log_served_one_in: Annotated[
        int, typer.Option(min=1, help="With --log-served: log one row of every N reads of a view.")
    ] = 1_000,
    towers: Annotated[
        Path | None,
        typer.Option(
            help="Folder that `produce export` wrote. With --pages: search by a sentence or a picture. If it was "
            "written with --with-verifier: score pairs of products at /v1/pairs."
        ),
    ] = None,
    triton: Annotated[
        str | None,
        typer.Option(
            help="With --towers: http://HOST:PORT of a Triton server that serves that folder.",
            show_default="in-process",
        ),
    ] = None,
    watch: Annotated[
        str | None,
        typer.Option(help="Run the freshness, drift and consistency checks at this interval (5m). See /status."),
    ] = None,
    objectives: Annotated[Path | None, typer.Option(help="With --watch: TOML file with freshness objectives.")] = None,
    impressions: Annotated[Path | None, typer.Option(help="With --watch: log of impressions (Parquet or CSV).")] = None,
    lift_report: Annotated[
        Path | None, typer.Option(help="With --watch: report.html of `consume lift`, linked from /status.")
    ] = None,
    pages: Annotated[
        bool, typer.Option("--pages", help="Serve pages: search, products, saved searches, judging pairs.")
    ] = False,
    calibration: Annotated[
        Path | None, typer.Option(help="With --pages: weights and cut-offs that `consume calibrate-search` wrote.")
    ] = None,
    *,
    table_format: "TableFormat",
    store: StoreOption = None,
) -> None:
    """Serve features of a user and candidates over Arrow Flight and HTTP (docs/how-to/serve.md).

    One process uses about one core. Flight and HTTP have processes and file descriptors of their own, so that callers
    of one protocol cannot stop the other. A process that ends is restarted.
    """
    if flight_port < 0 and http_port < 0:
        raise UsageError("--flight-port and --http-port are both -1; give a port to at least one of them")
    if (tls_certificate is None) != (tls_key is None):
        raise UsageError("give --tls-certificate and --tls-key together")
    if watch is None and (objectives or impressions or lift_report):
        raise UsageError("--objectives, --impressions and --lift-report need --watch, for example --watch 5m")
    if not pages and calibration:
        raise UsageError("--calibration needs --pages")
    if pages and http_port < 0:
        raise UsageError("--pages needs HTTP, but --http-port is -1")
    if triton is not None and towers is None:
        raise UsageError("--triton needs --towers, the exported folder that the Triton server serves")
    if processes > 1 and flight_port < 0:
        raise UsageError("--processes needs Flight, but --flight-port is -1")
    _check_ports_distinct(flight_port, http_port, processes)
    # A request is small: several threads within one would wait for each other. OpenBLAS reads this when NumPy is
    # imported.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from feature_repo.auth import ServerAccess, TlsCertificate, read_token

    certificate = TlsCertificate(tls_certificate, tls_key) if tls_certificate and tls_key else None
    options = _ServeOptions(
        access=ServerAccess(host, read_token(token_file), certificate),
        flight_port=flight_port,
        http_port=http_port,
        limits=ServingLimits(
            max_product_ids=max_ids,
            workers=workers,
            queue_size=queue_size if waiting is None else waiting,
            deadline_seconds=deadline,
            max_streams=streams,
        ),
        connections=ConnectionLimits(max_connections=connections),
        access_log=access_log,
        refresh_seconds=refresh,
        log_served=log_served,
        log_served_one_in=log_served_one_in,
        watch=watch,
        objectives=objectives,
        impressions=impressions,
        table_format=table_format,
        lift_report=lift_report,
        pages=pages,
        towers=towers,
        triton=triton,
        requires_verifier=not pages,
        calibration=calibration,
        deployment=config.load(store),
    )
    if processes == 1 and min(flight_port, http_port) < 0:
        _serve(options, lambda addresses: _print_addresses([addresses]))
    else:
        _serve_several(options, processes)


@dataclass(frozen=True)
class _ServeOptions:
    """The command's checked options, under their names; None if not given. Each process gets a copy with its ports."""

    access: "ServerAccess"
    flight_port: int
    http_port: int
    limits: ServingLimits
    connections: ConnectionLimits
    access_log: str
    refresh_seconds: float
    log_served: Path | None
    log_served_one_in: int
    watch: str | None
    objectives: Path | None
    impressions: Path | None
    table_format: "TableFormat"
    lift_report: Path | None
    pages: bool
    towers: Path | None
    triton: str | None
    requires_verifier: bool
    """Whether the towers are of no use without a pair verifier."""
    calibration: Path | None
    deployment: config.Settings
    metrics_folder: str | None = None
    """Folder of all processes' metrics; None for a single process."""


def _check_ports_distinct(flight_port: int, http_port: int, processes: int) -> None:
    """Raise UsageError if the processes' Flight ports exceed MAX_PORT or contain the HTTP port.

    Ports of 0 (any free one) and -1 (none) are not checked.
    """
    last = flight_port + processes - 1
    if flight_port > 0 and last > MAX_PORT:
        raise UsageError(
            f"--flight-port {flight_port} with --processes {processes} needs ports above {MAX_PORT}; give a lower port"
        )
    if 0 < flight_port <= http_port <= last:
        raise UsageError(f"--http-port {http_port} is one of Flight's ports {flight_port} to {last}; give another")


def _serve_several(options: _ServeOptions, count: int) -> None:
    """Serve Flight in `count` processes, and HTTP in a further one, whose /metrics shows the sums over all.

    The checks and the status page are with HTTP; without it, the checks are in the first process.
    """
    from prometheus_client import multiprocess

    from consumers.serving import metrics, supervisor
    from consumers.serving.shutdown import graceful_shutdown

    host = options.access.host
    ports = supervisor.choose_ports(host, options.flight_port, count)
    http = options.http_port or supervisor.choose_ports(host, 0, 1)[0]  # chosen here so that a restart keeps it
    logs = current_log_options()
    supervisor.check_ports_free(host, flight=ports, http=http)
    with graceful_shutdown() as shutdown, TemporaryDirectory(prefix="vitrine-metrics-") as folder:
        os.environ[metrics.SHARED_FOLDER_VARIABLE] = folder
        shared = replace(options, metrics_folder=folder)
        each = [replace(shared, flight_port=port, http_port=-1, watch=None, pages=False) for port in ports]
        if http < 0:
            each[0] = replace(each[0], watch=options.watch)
        else:
            each.append(replace(shared, flight_port=-1, http_port=http))
        supervisor.supervise(
            [partial(_serve_in_child, logs, process_options) for process_options in each],
            _print_addresses,
            shutdown,
            lambda pid: multiprocess.mark_process_dead(pid, folder),  # type: ignore[no-untyped-call]
        )


def _serve_in_child(logs: LogOptions, options: _ServeOptions, on_ready: Callable[[dict[str, str]], None]) -> None:
    """Serve in a child process, and log there as the command does."""
    logs.apply()
    _serve(options, on_ready)


def _serve(options: _ServeOptions, on_ready: Callable[[dict[str, str]], None]) -> None:
    """Serve in this process until the shutdown.

    Args:
        options: the options of this process.
        on_ready: called once with the address of each protocol, when all of them accept connections.

    Raises:
        NotFoundError: there is no online store yet.
    """
    from consumers.monitoring.consistency.served_log import ServedLog
    from consumers.online.reader import OnlineReader
    from consumers.serving import server
    from consumers.serving.executor import AccessLog, RequestExecutor
    from consumers.serving.metrics import Metrics
    from consumers.serving.shutdown import graceful_shutdown
    from consumers.serving.supervisor import check_ports_free
    from feature_repo.online.open_store import open_configured_table

    check_ports_free(options.access.host, flight=[options.flight_port], http=options.http_port)
    table = open_configured_table(options.deployment)
    if table is None:
        raise NotFoundError(f"{options.deployment.file}: there is no online store yet; run `feast apply`")
    metrics = Metrics(options.metrics_folder)
    with graceful_shutdown() as shutdown, ExitStack() as stack:
        routers: list[APIRouter] = []
        if options.watch is not None:
            from consumers.monitoring.freshness.objectives import load_objectives
            from consumers.monitoring.prometheus import CheckCollector
            from consumers.monitoring.status_page import create_router
            from consumers.monitoring.watcher import Watcher, default_checks
            from feature_repo.durations import parse_duration

            every = parse_duration(options.watch)
            if options.objectives:
                load_objectives(
                    options.objectives
                )  # each check reads the file again; this reports a mistake at the start
            watched = default_checks(
                options.deployment.file,
                every,
                objectives=options.objectives,
                impressions=options.impressions,
                table_format=options.table_format,
            )
            watcher = stack.enter_context(Watcher(watched, _now))
            metrics.registry.register(CheckCollector(watcher.states))
            routers.append(create_router(watcher.states, _now, lift_report=options.lift_report))
        stream = stack.enter_context(_open_stream(options.access_log))
        if options.log_served is not None:
            table.on_read = stack.enter_context(ServedLog(options.log_served, options.log_served_one_in))
        pairs = None
        if options.towers is not None:
            from feature_repo.extras import require

            require("search", "onnxruntime", "tokenizers", "PIL", "sklearn", "faiss")
            from consumers.serving.pairs import open_pairs

            pairs = open_pairs(
                options.deployment,
                options.towers,
                triton=options.triton,
                is_required=options.requires_verifier,
                deadline_seconds=options.limits.deadline_seconds,
                refresh_seconds=options.refresh_seconds,
                metrics=metrics,
            )
        reader = stack.enter_context(OnlineReader.from_table(table, refresh=options.refresh_seconds))
        executor = RequestExecutor(reader, limits=options.limits, metrics=metrics, access_log=AccessLog(stream))
        pages = body_limits = None
        if options.pages:
            from consumers.pages.application import open_pages

            application = stack.enter_context(
                open_pages(
                    options.deployment,
                    reader,
                    executor,
                    options.access,
                    towers=options.towers,
                    triton=options.triton,
                    calibration=options.calibration,
                    has_status=options.watch is not None,
                    clock=_now,
                )
            )
            pages, body_limits = application.pages, application.body_limits
            routers += application.routers
        server.serve(
            executor,
            options.access,
            routers=routers,
            pages=pages,
            body_limits=body_limits,
            flight_port=None if options.flight_port < 0 else options.flight_port,
            http_port=None if options.http_port < 0 else options.http_port,
            shutdown=shutdown,
            connections=options.connections,
            pairs=pairs,
            on_ready=on_ready,
        )


def _print_addresses(addresses: list[dict[str, str]]) -> None:
    """Print the addresses of all processes, each protocol to address, in one line on standard error."""
    texts = [f"{protocol} at {address}" for process in addresses for protocol, address in process.items()]
    print_notice("serving " + ", ".join(texts))


def _now() -> datetime:
    return datetime.now(UTC)


def _open_stream(access_log: str) -> AbstractContextManager[TextIO | None]:
    """Open the access log for appending, readable by its owner only. At the end a file is closed, standard output not.

    Args:
        access_log: file; `-` is standard output, and an empty text is no log.
    """
    if access_log in ("", "-"):
        return nullcontext(sys.stdout if access_log else None)
    return cast(TextIO, append_private(Path(access_log), "a", encoding="ascii"))
