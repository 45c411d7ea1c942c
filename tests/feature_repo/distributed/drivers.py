"""Processes that run work on the tests' cluster and are killed by the tests."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import datetime
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from tests.processes import begun

context = get_context("spawn")


def materialize(folder: Path, end: datetime) -> None:
    """Materialize `looks` incrementally, in groups of a few hundred rows."""
    from feature_repo.distributed import materialize as on_ray
    from tests.feature_repo.stores import world

    on_ray.ROWS_PER_ENTRY = 200
    world.open_store(folder).materialize_incremental(end, feature_views=["looks"])


def embed(store: Path, encoder: Path, now: datetime, address: str) -> None:
    """Encode the catalogue, in commits of a few rows."""
    from feature_repo import config
    from producers.embeddings import run as embeddings
    from producers.encoders import on_ray

    embeddings.ROWS_PER_COMMIT, on_ray.ROWS_PER_PART = 20, 7
    embeddings.embed_catalogue(config.load(store), str(encoder), now=now, progress=lambda *_: None, ray=address)


def _drive(pipe: Connection, address: str, work: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    import ray.data
    from ray.data.context import ShuffleStrategy

    from feature_repo.distributed import cluster

    cluster.connect(address)
    ray.data.DataContext.get_current().shuffle_strategy = ShuffleStrategy.SORT_SHUFFLE_PULL_BASED  # as in conftest.py
    pipe.send("begins")
    work(*arguments)
    pipe.send("done")


def running(
    address: str, work: Callable[..., None], *arguments: Any
) -> AbstractContextManager[tuple[BaseProcess, Connection]]:
    """Start a process that is connected to the cluster and has begun its work; it sends "done" over the pipe."""
    return begun(context, _drive, address, work, arguments)
