"""The data sets that can be imported, by name."""

from datetime import datetime
from enum import StrEnum
from pathlib import Path

from feature_repo.errors import UsageError, VitrineError
from producers.datasets.imports import abt_buy, beibei_zh, flipkart_1050, grocery, movielens, mum_baby
from producers.datasets.imports.folder import ImportedTables, ImportSummary, write


class DataSet(StrEnum):
    """One name per set."""

    FLIPKART_1050 = "flipkart_1050"
    GROCERY = "grocery"
    BEIBEI_ZH = "beibei_zh"
    MUM_BABY = "mum_baby"
    MOVIELENS = "movielens"
    ABT_BUY = "abt_buy"


READERS = {
    DataSet.FLIPKART_1050: flipkart_1050.read,
    DataSet.GROCERY: grocery.read,
    DataSet.BEIBEI_ZH: beibei_zh.read,
    DataSet.MUM_BABY: mum_baby.read,
    DataSet.MOVIELENS: movielens.read,
    DataSet.ABT_BUY: abt_buy.read,
}


def import_dataset(name: str, source: Path, out: Path, now: datetime) -> ImportSummary:
    """Read the set `name` from its folder and write it to `out` as a shop's folder.

    Raises:
        UsageError: no set has that name.
        VitrineError: its folder lacks a file or a column.
    """
    if name not in READERS:
        raise UsageError(f"no data set `{name}` is known; wanted {', '.join(READERS)}")
    if not source.is_dir():
        raise VitrineError(f"{source}: no such folder; wanted the folder that holds the files of {name}")
    found: ImportedTables = READERS[DataSet(name)](source.resolve(), now)
    return write(found, name, out, now)
