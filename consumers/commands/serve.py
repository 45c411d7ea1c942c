"""`consume serve`."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from feature_repo import config
from feature_repo.console import StoreOption
from feature_repo.errors import UsageError
from feature_repo.server_options import (
    MAX_PORT,
    AccessLogOption,
    ConnectionsOption,
    HostOption,
    TlsCertificateOption,
    TlsKeyOption,
    TokenFileOption,
    check_tls_files,
)
from feature_repo.serving_limits import ConnectionLimits, ServingLimits
from feature_repo.table_options import with_table_options

if TYPE_CHECKING:
    from feature_repo.table_format import TableFormat


@with_table_options
def serve(
    host: HostOption = "127.0.0.1",
    flight_port: Annotated[
        int, typer.Option(min=-1, max=MAX_PORT, help="Port of Arrow Flight. 0: any free port. -1: no Flight.")
    ] = 8815,
    http_port: Annotated[
        int, typer.Option(min=-1, max=MAX_PORT, help="Port of HTTP. 0: any free port. -1: no HTTP.")
    ] = 8080,
    token_file: TokenFileOption = None,
    tls_certificate: TlsCertificateOption = None,
    tls_key: TlsKeyOption = None,
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
    connections: ConnectionsOption = ConnectionLimits.max_connections,
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
    access_log: AccessLogOption = "-",
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
    check_tls_files(tls_certificate, tls_key)
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
    from consumers.serving.run import ServeOptions, print_addresses, serve_in_process, serve_several
    from feature_repo.auth import ServerAccess, TlsCertificate, read_token

    certificate = TlsCertificate(tls_certificate, tls_key) if tls_certificate and tls_key else None
    options = ServeOptions(
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
        serve_in_process(options, lambda addresses: print_addresses([addresses]))
    else:
        serve_several(options, processes)


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
