"""Runs `consume serve` with its checked options: one process, or several with a supervisor."""

import os
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from prometheus_client import multiprocess

from consumers.monitoring.consistency.served_log import ServedLog
from consumers.online.reader import OnlineReader
from consumers.serving import server, supervisor
from consumers.serving.executor import RequestExecutor
from consumers.serving.metrics import Metrics
from feature_repo import extras
from feature_repo.auth import ServerAccess
from feature_repo.config import Settings
from feature_repo.console import LogOptions, current_log_options, print_notice
from feature_repo.durations import parse_duration
from feature_repo.errors import NotFoundError
from feature_repo.online.open_store import open_configured_table
from feature_repo.server.metrics import SHARED_FOLDER_VARIABLE
from feature_repo.server.request_log import AccessLog, open_access_log
from feature_repo.server.shutdown import graceful_shutdown
from feature_repo.server_options import describe_address
from feature_repo.serving_limits import ConnectionLimits, ServingLimits
from feature_repo.table_format import TableFormat

if TYPE_CHECKING:
    from fastapi import APIRouter

    from consumers.serving.pairs import PairExecutor


@dataclass(frozen=True)
class ServeOptions:
    """The checked options of `consume serve`, under their names; None if not given. Each process gets its own ports."""

    access: ServerAccess
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
    table_format: TableFormat
    lift_report: Path | None
    pages: bool
    towers: Path | None
    triton: str | None
    requires_verifier: bool
    """Whether the towers are of no use without a pair verifier."""
    calibration: Path | None
    deployment: Settings
    metrics_folder: str | None = None
    """Folder of all processes' metrics; None for a single process."""


def serve_several(options: ServeOptions, count: int) -> None:
    """Serve Flight in `count` processes, and HTTP in a further one, whose /metrics shows the sums over all.

    The checks and the status page are with HTTP; without it, the checks are in the first process.
    """
    host = options.access.host
    ports = supervisor.choose_ports(host, options.flight_port, count)
    http = options.http_port or supervisor.choose_ports(host, 0, 1)[0]  # chosen here so that a restart keeps it
    logs = current_log_options()
    supervisor.check_ports_free(host, flight=ports, http=http)
    with graceful_shutdown() as shutdown, TemporaryDirectory(prefix="vitrine-metrics-") as folder:
        os.environ[SHARED_FOLDER_VARIABLE] = folder
        shared = replace(options, metrics_folder=folder)
        each = [replace(shared, flight_port=port, http_port=-1, watch=None, pages=False) for port in ports]
        if http < 0:
            each[0] = replace(each[0], watch=options.watch)
        else:
            each.append(replace(shared, flight_port=-1, http_port=http))
        supervisor.supervise(
            [partial(_serve_in_child, logs, process_options) for process_options in each],
            print_addresses,
            shutdown,
            lambda pid: multiprocess.mark_process_dead(pid, folder),  # type: ignore[no-untyped-call]
        )


def _serve_in_child(logs: LogOptions, options: ServeOptions, on_ready: Callable[[dict[str, str]], None]) -> None:
    """Serve in a child process, and log there as the command does."""
    logs.apply()
    serve_in_process(options, on_ready)


def serve_in_process(options: ServeOptions, on_ready: Callable[[dict[str, str]], None]) -> None:
    """Serve in this process until the shutdown.

    Args:
        options: the options of this process.
        on_ready: called once with the address of each protocol, when all of them accept connections.

    Raises:
        NotFoundError: there is no online store yet.
    """
    supervisor.check_ports_free(options.access.host, flight=[options.flight_port], http=options.http_port)
    table = open_configured_table(options.deployment)
    if table is None:
        raise NotFoundError(f"{options.deployment.file}: there is no online store yet; run `feast apply`")
    metrics = Metrics(options.metrics_folder)
    with graceful_shutdown() as shutdown, ExitStack() as stack:
        routers = [] if options.watch is None else [_start_checks(options, options.watch, metrics, stack)]
        stream = stack.enter_context(open_access_log(options.access_log))
        if options.log_served is not None:
            table.on_read = stack.enter_context(ServedLog(options.log_served, options.log_served_one_in))
        pairs = None if options.towers is None else _open_pairs(options, options.towers, metrics)
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


def _start_checks(options: ServeOptions, watch: str, metrics: Metrics, stack: ExitStack) -> "APIRouter":
    """Start the checks that run every `watch`; return the routes of their status page."""
    from consumers.monitoring.freshness.objectives import load_objectives
    from consumers.monitoring.prometheus import CheckCollector
    from consumers.monitoring.status_page import create_router
    from consumers.monitoring.watcher import Watcher, default_checks

    every = parse_duration(watch)
    if options.objectives:
        load_objectives(options.objectives)  # each check reads the file again; this reports a mistake at the start
    checks = default_checks(
        options.deployment.file,
        every,
        objectives=options.objectives,
        impressions=options.impressions,
        table_format=options.table_format,
    )
    watcher = stack.enter_context(Watcher(checks, _now))
    metrics.registry.register(CheckCollector(watcher.states))
    return create_router(watcher.states, _now, lift_report=options.lift_report)


def _open_pairs(options: ServeOptions, towers: Path, metrics: Metrics) -> "PairExecutor | None":
    """Open the scoring of pairs by the exported towers; None if they lack a verifier and none is required."""
    extras.require("search", "onnxruntime", "tokenizers", "PIL", "sklearn", "faiss")
    from consumers.serving.pairs import open_pairs

    return open_pairs(
        options.deployment,
        towers,
        triton=options.triton,
        is_required=options.requires_verifier,
        deadline_seconds=options.limits.deadline_seconds,
        refresh_seconds=options.refresh_seconds,
        metrics=metrics,
    )


def print_addresses(addresses: list[dict[str, str]]) -> None:
    """Print the addresses of all processes, each protocol to address, in one line on standard error."""
    texts = [describe_address(protocol, address) for process in addresses for protocol, address in process.items()]
    print_notice("serving " + ", ".join(texts))


def _now() -> datetime:
    return datetime.now(UTC)
