"""The time of each stage of one request, within the server's process."""

import gc
import statistics
import time
from collections.abc import Callable
from contextlib import closing
from typing import Any

from threadpoolctl import threadpool_limits

from consumers.online import OnlineReader, affinity
from consumers.serving import executor, flight, request, response
from consumers.serving.client import encode_request
from consumers.serving.executor import RequestExecutor
from consumers.serving.metrics import Metrics
from feature_repo import memory
from feature_repo.online.redis_store import RedisPipeline
from feature_repo.online.request_plan import PlannedRequest
from feature_repo.online.table import OnlineTable
from feature_repo.server.request_log import AccessLog
from feature_repo.serving_limits import ServingLimits
from tests.benchmarks.serving.deployment import SERVICE, open_deployments
from tests.benchmarks.serving.options import CallsOption, CandidatesOption, ProductsOption, UsersOption, draw_requests

STAGES: dict[str, tuple[Any, str]] = {
    "read the request": (executor, "parse_request"),
    "make the rows' keys": (PlannedRequest, "view_request"),
    "ask Redis": (RedisPipeline, "send"),
    "wait for Redis, take its rows": (RedisPipeline, "receive"),
    "unpack rows": (OnlineTable, "unpack"),
    "compute affinity": (affinity, "_compute_affinity"),
    "make Arrow's columns": (request, "build_response"),
    "write the user's row": (flight, "to_ipc"),
}
"""Stage to the function that does it. None of the functions calls another one."""


def stages(
    products: ProductsOption = 3_000,
    users: UsersOption = 100,
    candidates: CandidatesOption = 500,
    calls: CallsOption = 500,
) -> None:
    """Print the median milliseconds of each stage of a request, without Flight."""
    memory.keep_freed()  # as in the server
    spent = dict.fromkeys(STAGES, 0.0)
    for stage, (owner, name) in STAGES.items():
        setattr(owner, name, _measure_time(getattr(owner, name), stage, spent))
    every: dict[str, list[float]] = {stage: [] for stage in (*STAGES, "other", "total")}
    with (
        open_deployments(products, users) as (_, server),
        OnlineReader(f"redis://{server.address}", "ours") as reader,
        closing(
            RequestExecutor(reader, limits=ServingLimits(), metrics=Metrics(), access_log=AccessLog(None))
        ) as request_executor,
        threadpool_limits(1),
    ):
        request_executor.lookup.warm_up()
        gc.freeze()
        draw = draw_requests(products, users, candidates)
        for _ in range(calls):
            data = encode_request(SERVICE, *draw())
            spent.update(dict.fromkeys(STAGES, 0.0))
            start = time.perf_counter()
            with request_executor.track(flight.PROTOCOL, None) as context:
                request_executor.execute(data, context, _encode_user)
            total = time.perf_counter() - start
            for stage, seconds in {**spent, "other": total - sum(spent.values()), "total": total}.items():
                every[stage].append(seconds)
    for stage, seconds_ in every.items():
        print(f"{stage:32} {statistics.median(seconds_) * 1e3:6.2f}")


def _encode_user(result: response.FeatureResponse) -> object:
    return flight.to_ipc(result.user) if result.user is not None else None


def _measure_time(call: Callable[..., Any], stage: str, spent: dict[str, float]) -> Callable[..., Any]:
    def measured(*args: Any, **named: Any) -> Any:
        start = time.perf_counter()
        try:
            return call(*args, **named)
        finally:
            spent[stage] += time.perf_counter() - start

    return measured
