"""Producers in processes that tests can kill, forked from a server that has imported everything."""

from contextlib import AbstractContextManager
from datetime import datetime
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

from feature_repo import config, run_log
from feature_repo.errors import VitrineError
from feature_repo.files import locks
from producers.catalogue import ingest as catalogue
from producers.embeddings import run as embeddings
from tests.processes import begun

context = get_context("forkserver")
context.set_forkserver_preload(
    ["tests.producers.embeddings.runs", "torch", "transformers", "producers.encoders.checkpoint"]
)

ROWS_PER_COMMIT = 16


def _run(pipe: Connection, store: Path, products: Path, encoder: Path, now: datetime, folder: str) -> None:
    """Run `produce catalogue` and `produce embeddings`, in commits of a few rows."""
    embeddings.ROWS_PER_COMMIT = ROWS_PER_COMMIT
    locks.FOLDER = folder
    opened = config.load(store)
    pipe.send("begins")
    try:
        with run_log.record_run(opened, catalogue.STEP, now=now):
            catalogue.ingest_products(opened, products, now)
        embeddings.embed_catalogue(opened, str(encoder), now=now, progress=lambda *_: None)
    except VitrineError as error:
        pipe.send(str(error))
    else:
        pipe.send("done")


def running(
    store: Path, products: Path, encoder: Path, now: datetime, *, locks: str = locks.FOLDER
) -> AbstractContextManager[tuple[BaseProcess, Connection]]:
    """Start a process; its pipe receives "begins", and then "done" or the message of the error that ended it.

    Args:
        locks: folder of its lock files; processes with different folders do not see each other's locks.
    """
    return begun(context, _run, store, products, encoder, now, locks)
