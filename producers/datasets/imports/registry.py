"""The importers of data sets, by name."""

from collections.abc import Callable
from datetime import datetime
from functools import partial
from pathlib import Path

from feature_repo.errors import NotFoundError, UsageError
from producers.datasets.imports import abt_buy, beibei_zh, flipkart_1050, grocery, movielens, muge, mum_baby
from producers.datasets.imports.folder import ImportedTables, ImportSummary, write

READERS: dict[str, Callable[[Path, datetime], ImportedTables]] = {
    "flipkart_1050": flipkart_1050.read,
    "grocery": grocery.read,
    "beibei_zh": beibei_zh.read,
    "mum_baby": mum_baby.read,
    "movielens": movielens.read,
    "abt_buy": abt_buy.read,
    "muge": muge.read,
}
"""The importers by the name of their data set: functions of the set's folder and the current time."""


def import_dataset(name: str, source: Path, output: Path, now: datetime, split: str | None = None) -> ImportSummary:
    """Convert a data set to the folder of a shop. An earlier import in `output` is replaced; other files there stay.

    If the set cannot be read, `output` stays as it was.

    Args:
        name: a key of READERS.
        source: the folder with the set's own files; it is only read.
        output: the folder to write, which is created if missing.
        now: the created timestamp of refused rows, with a time zone.
        split: read only this split of MUGE; None reads all.

    Returns:
        The number of rows of each written table, the reasons of refusals, and remarks on the set.

    Raises:
        UsageError: no set has this name, or a split is named of another set than MUGE.
        NotFoundError: `source` or one of its files does not exist.
        InvalidInputError: a file cannot be read, is empty, lacks a column or has a column of a wrong type.
    """
    if name not in READERS:
        raise UsageError(f"no data set `{name}` is known; expected one of {', '.join(READERS)}")
    if not source.is_dir():
        raise NotFoundError(f"{source}: no such folder; expected the folder with the files of {name}")
    reader = READERS[name]
    if split is not None:
        if name != "muge":
            raise UsageError(f"--split names a split of muge; {name} has no option for its splits")
        reader = partial(muge.read, split=split)
    return write(reader(source.resolve(), now), name, output, now)
