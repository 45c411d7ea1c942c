"""A training set for whoever trains elsewhere: vectors once, and the tabular part as trees read it.

    FOLDER/impressions.parquet      the log in time order: its columns, `split` (train, validation, test), and for each
                                    view an int32 `VIEW__row`: its row of versions/VIEW.parquet, null for none
    FOLDER/versions/VIEW.parquet    the rows of the view that some impression got, each once
    FOLDER/tabular.libsvm           label, then feature:value, features from 0; a missing one is left out
    FOLDER/tabular.bin              the same for LightGBM, in bins
    FOLDER/features.json            names of those features in their order, and which are categories

Written beside and renamed, so that a killed export leaves no folder that looks whole. `ImpressionDataset` reads the
first two into torch.
"""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from consumers.ranking.training_set import JoinedView, TrainingSet
from feature_repo.atomic_write import replace_atomically
from feature_repo.errors import VitrineError
from feature_repo.schema import CLICKED

if TYPE_CHECKING:
    import torch

PARQUET, LIBSVM, LIGHTGBM = "parquet", "libsvm", "lightgbm"
FORMATS = (PARQUET, LIBSVM, LIGHTGBM)
EXPORT_FILES = ("impressions.parquet", "versions", "tabular.libsvm", "tabular.bin", "features.json")


def check_export(folder: Path, formats: Sequence[str]) -> None:
    """Refuse what could not be exported, before anything is joined.

    Raises:
        VitrineError: a format is unknown, or the folder holds something other than an export.
    """
    unknown = [name for name in formats if name not in FORMATS]
    if unknown or not formats:
        raise VitrineError(f"no format {', '.join(unknown) or 'named'}; there are: {', '.join(FORMATS)}")
    if folder.exists() and (not folder.is_dir() or any(file.name not in EXPORT_FILES for file in folder.iterdir())):
        raise VitrineError(f"{folder}: holds something other than an exported training set; name another --output")


def export_training_set(
    data: TrainingSet,
    split: NDArray[np.str_],
    features: Mapping[str, NDArray[Any]],
    folder: Path,
    formats: Sequence[str],
    progress: Callable[[str], None],
) -> dict[str, int]:
    """Write a joined log in some of FORMATS.

    Args:
        data: the joined log [n].
        split: which part each impression is of [n].
        features: of the tabular part, float32 or int32 [n].
        folder: where to; an earlier export there is replaced.
        formats: of FORMATS.
        progress: told what is being written.

    Returns:
        File, relative to the folder, to its bytes.

    Raises:
        VitrineError: as of `refuse`.
    """
    check_export(folder, formats)
    with replace_atomically(folder) as unfinished:
        unfinished.mkdir()
        if PARQUET in formats:
            progress("impressions and versions")
            _parquet(data, split, unfinished)
        if LIBSVM in formats or LIGHTGBM in formats:
            progress("tabular part")
            _tabular(data, features, unfinished, formats)
        shutil.rmtree(folder, ignore_errors=True)
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return {str(file.relative_to(folder)): file.stat().st_size for file in files}


def _parquet(data: TrainingSet, split: NDArray[np.str_], folder: Path) -> None:
    table = data.impressions.append_column("split", pa.array(split).dictionary_encode())
    (folder / "versions").mkdir()
    for name, view in data.views.items():
        used, row = _used(view)
        table = table.append_column(f"{name}__row", pa.array(row.astype(np.int32), mask=row < 0))
        pq.write_table(view.versions.take(pa.array(used)), folder / "versions" / f"{name}.parquet")
    pq.write_table(table, folder / "impressions.parquet")


def _used(view: JoinedView) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The versions that some impression got, and each impression's place among them, -1 for none."""
    used = np.unique(view.row[view.row >= 0])
    return used, np.where(view.row >= 0, np.searchsorted(used, view.row), -1)


def _tabular(data: TrainingSet, features: Mapping[str, NDArray[Any]], folder: Path, formats: Sequence[str]) -> None:
    from consumers.ranking import lightgbm_ranker

    every = np.ones(len(data.clicked), bool)
    said = {"features": list(features), "categories": list(lightgbm_ranker.list_categories(features))}
    (folder / "features.json").write_text(json.dumps(said, indent=1, ensure_ascii=False) + "\n")
    if LIGHTGBM in formats:
        lightgbm_ranker.bin_features(features, data.clicked, every, ~every).train.save_binary(
            str(folder / "tabular.bin")
        )
    if LIBSVM in formats:
        with (folder / "tabular.libsvm").open("w") as file:
            for start in range(0, len(every), 20_000):
                block = np.zeros_like(every)
                block[start : start + 20_000] = True
                rows = lightgbm_ranker.to_matrix(features, block)
                file.writelines(_lines(rows, data.clicked[block]))


def _lines(rows: NDArray[np.float32], clicked: NDArray[np.integer]) -> list[str]:
    """One line a row: what is NaN is left out, zeros are written, for to trees they are not the same."""
    lines = []
    for label, row in zip(clicked.tolist(), rows, strict=True):
        known = np.flatnonzero(~np.isnan(row))
        pairs = " ".join(f"{i}:{value:.9g}" for i, value in zip(known.tolist(), row[known].tolist(), strict=True))
        lines.append(f"{label} {pairs}\n")
    return lines


class ImpressionDataset:
    """The exported impressions as a map-style torch dataset, vectors gathered from the distinct versions.

    An item is a dict of tensors: `clicked` float32; for each view and numeric or vector column `VIEW__COLUMN` float32,
    NaN where there is none. `DataLoader` asks for a whole batch at once (`__getitems__`), which is gathered in one go.

    Args:
        folder: of an export with parquet.
        split: train, validation or test; None for all.
        columns: of the views, as `VIEW__COLUMN`; None for all that are numbers or vectors of one length.

    Raises:
        VitrineError: the folder holds no such export, or a column is not there.
    """

    def __init__(self, folder: Path, *, split: str | None = None, columns: Sequence[str] | None = None) -> None:
        import torch

        file = folder / "impressions.parquet"
        if not file.is_file():
            raise VitrineError(f"{file}: no such file; `consume export-training --format parquet` writes it")
        table = pq.read_table(file)
        if split is not None:
            keep = np.array(table.column("split").to_pylist()) == split
            table = table.filter(pa.array(keep))
        self._clicked = torch.from_numpy(table.column(CLICKED).to_numpy().astype(np.float32))
        self._values: dict[str, torch.Tensor] = {}
        self._row: dict[str, torch.Tensor] = {}
        for versions in sorted((folder / "versions").glob("*.parquet")):
            self._read(versions.stem, pq.read_table(versions), table)
        missing = [name for name in columns or () if name not in self._values]
        if missing:
            raise VitrineError(f"{folder}: no column {', '.join(missing)}; there are: {', '.join(self._values)}")
        if columns is not None:
            self._values = {name: self._values[name] for name in columns}

    def _read(self, view: str, versions: pa.Table, table: pa.Table) -> None:
        import torch

        row = table.column(f"{view}__row").fill_null(-1).to_numpy().astype(np.int64)
        self._row[view] = torch.from_numpy(row)
        joined = JoinedView(versions, np.zeros(len(versions), np.int64), np.arange(len(versions)))
        for field in versions.schema:
            if pa.types.is_list(field.type) and pa.types.is_floating(field.type.value_type):
                values = joined.vectors(field.name)
            elif pa.types.is_floating(field.type) or pa.types.is_integer(field.type) or pa.types.is_boolean(field.type):
                values = joined.numbers(field.name)
            else:
                continue
            absent = np.full((1, *values.shape[1:]), np.nan, np.float32)
            self._values[f"{view}__{field.name}"] = torch.from_numpy(np.concatenate([values, absent]))

    def __len__(self) -> int:
        return len(self._clicked)

    def __getitem__(self, index: int) -> "dict[str, torch.Tensor]":
        return {name: values[0] for name, values in self.batch([index]).items()}

    def __getitems__(self, indices: Sequence[int]) -> "list[dict[str, torch.Tensor]]":
        batch = self.batch(indices)
        return [{name: values[i] for name, values in batch.items()} for i in range(len(indices))]

    def batch(self, indices: Sequence[int]) -> "dict[str, torch.Tensor]":
        """Some impressions at once: `clicked` float32 [n], numbers [n], vectors [n, d]."""
        found = {"clicked": self._clicked[list(indices)]}
        for name, values in self._values.items():
            view = name.split("__", 1)[0]
            found[name] = values[self._row[view][list(indices)]]  # -1 is the last row: absent
        return found
