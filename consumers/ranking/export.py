"""Export a training set: each vector once, and the scalar features in formats that tree libraries read.

    FOLDER/impressions.parquet      the log in time order: its columns, `split` (train, validation, test), and for each
                                    view an int32 `VIEW__row`: the row of versions/VIEW.parquet, null for none
    FOLDER/versions/VIEW.parquet    the rows of the view that at least one impression has, each once
    FOLDER/tabular.libsvm           label, then feature:value, features numbered from 0; missing values are left out
    FOLDER/tabular.bin              the same for LightGBM, binned
    FOLDER/features.json            names of those features in order, and those that are categories

The export is written beside FOLDER and renamed at the end, so that a killed export leaves no folder that looks
complete. `ImpressionDataset` reads the Parquet files into torch.
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

from consumers.ranking.training_set import JoinedView, RankingTrainingSet
from feature_repo.atomic_write import replace_atomically
from feature_repo.errors import InvalidInputError, NotFoundError, UsageError
from feature_repo.schema import CLICKED

if TYPE_CHECKING:
    import torch

PARQUET, LIBSVM, LIGHTGBM = "parquet", "libsvm", "lightgbm"
FORMATS = (PARQUET, LIBSVM, LIGHTGBM)
ROWS_PER_BLOCK = 20_000
"""Rows that are written to tabular.libsvm at a time."""
EXPORT_FILES = ("impressions.parquet", "versions", "tabular.libsvm", "tabular.bin", "features.json")


def check_export(folder: Path, formats: Sequence[str]) -> None:
    """Check that an export can be written, before anything is joined. Nothing is created or removed.

    Args:
        folder: folder to write. It may be absent, empty, or an earlier export: a folder with no other names in it than
            EXPORT_FILES.
        formats: some of FORMATS.

    Raises:
        UsageError: no format is given, or one is not in FORMATS.
        InvalidInputError: `folder` is a file, or holds something other than an export.
    """
    unknown = [name for name in formats if name not in FORMATS]
    if unknown or not formats:
        raise UsageError(f"no format {', '.join(unknown) or 'given'}; there are: {', '.join(FORMATS)}")
    if folder.exists() and (not folder.is_dir() or any(file.name not in EXPORT_FILES for file in folder.iterdir())):
        raise InvalidInputError(f"{folder}: holds something other than an exported training set; name another --output")


def export_training_set(
    data: RankingTrainingSet,
    split: NDArray[np.str_],
    features: Mapping[str, NDArray[Any]],
    folder: Path,
    formats: Sequence[str],
    progress: Callable[[str], None],
) -> dict[str, int]:
    """Write a joined log in some of FORMATS.

    The files of libsvm and lightgbm have all n rows in the log's order, without `split`.

    Args:
        data: the joined log [n].
        split: train, validation or test for each impression [n].
        features: the scalar features by name, float32 [n] or int32 category codes [n], for libsvm and lightgbm; parquet
            leaves them out.
        folder: folder to write; missing parents are created. An earlier export is replaced as a whole, at the end: if
            writing fails before, it stays as it was.
        formats: some of FORMATS; at least one.
        progress: called with the name of each part before it is written.

    Returns:
        File, relative to the folder, to its size in bytes, sorted by path.

    Raises:
        UsageError: no format is given, or one is not in FORMATS.
        InvalidInputError: `folder` is a file, or holds something other than an export.
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


def _parquet(data: RankingTrainingSet, split: NDArray[np.str_], folder: Path) -> None:
    """Write impressions.parquet and the versions that impressions have, one file for each view."""
    table = data.impressions.append_column("split", pa.array(split).dictionary_encode())
    (folder / "versions").mkdir()
    for name, view in data.views.items():
        has_row = view.row_index >= 0
        used = np.unique(view.row_index[has_row])
        row = np.where(has_row, np.searchsorted(used, view.row_index), -1)
        table = table.append_column(f"{name}__row", pa.array(row.astype(np.int32), mask=~has_row))
        pq.write_table(view.versions.take(pa.array(used)), folder / "versions" / f"{name}.parquet")
    pq.write_table(table, folder / "impressions.parquet")


def _tabular(
    data: RankingTrainingSet, features: Mapping[str, NDArray[Any]], folder: Path, formats: Sequence[str]
) -> None:
    """Write features.json, and the scalar features in the tabular formats among `formats`."""
    from consumers.ranking import lightgbm_ranker

    all_rows = np.ones(len(data.clicked), bool)
    names = {"features": list(features), "categories": list(lightgbm_ranker.list_categories(features))}
    (folder / "features.json").write_text(json.dumps(names, indent=1, ensure_ascii=False) + "\n")
    if LIGHTGBM in formats:
        binned = lightgbm_ranker.bin_features(features, data.clicked, all_rows, ~all_rows)
        binned.train.save_binary(str(folder / "tabular.bin"))
    if LIBSVM in formats:
        with (folder / "tabular.libsvm").open("w") as file:
            for start in range(0, len(all_rows), ROWS_PER_BLOCK):
                block = np.zeros_like(all_rows)
                block[start : start + ROWS_PER_BLOCK] = True
                file.writelines(_format_libsvm(lightgbm_ranker.to_matrix(features, block), data.clicked[block]))


def _format_libsvm(rows: NDArray[np.float32], clicked: NDArray[np.integer]) -> list[str]:
    """One line per row. NaN is left out and zeros are written, because trees treat missing and zero differently."""
    lines = []
    for label, row in zip(clicked.tolist(), rows, strict=True):
        columns = np.flatnonzero(~np.isnan(row))
        pairs = " ".join(f"{i}:{value:.9g}" for i, value in zip(columns.tolist(), row[columns].tolist(), strict=True))
        lines.append(f"{label} {pairs}\n")
    return lines


class ImpressionDataset:
    """The exported impressions as a map-style torch dataset.

    Items are impressions in time order. Each vector is held in memory once and gathered per item. An item is a
    dictionary of float32 tensors: `clicked` (0 or 1), and `VIEW__COLUMN` for each column of a view, NaN where the
    impression has no version of the view or the value is null. Texts, and the log's own columns except `clicked`, are
    not read. `DataLoader` fetches a whole batch with one gather
    (`__getitems__`).

    Args:
        folder: an export with the format parquet.
        split: train, validation or test; any other name gives an empty dataset. None takes all impressions.
        columns: columns to read, as `VIEW__COLUMN`; items have them in this order. None takes all numbers, booleans and
            vectors, the views in the order of their names.

    Raises:
        NotFoundError: the folder has no such export, or a column does not exist.
        CorruptDataError: the vectors of one column have different lengths.
    """

    def __init__(self, folder: Path, *, split: str | None = None, columns: Sequence[str] | None = None) -> None:
        import torch

        file = folder / "impressions.parquet"
        if not file.is_file():
            raise NotFoundError(f"{file}: no such file; `consume export-training --format parquet` writes it")
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
            raise NotFoundError(f"{folder}: no column {', '.join(missing)}; there are: {', '.join(self._values)}")
        if columns is not None:
            self._values = {name: self._values[name] for name in columns}

    def _read(self, view: str, versions: pa.Table, table: pa.Table) -> None:
        """Keep the numeric and vector columns of a view, with a last row of NaN for impressions without a version."""
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
            nan_row = np.full((1, *values.shape[1:]), np.nan, np.float32)
            self._values[f"{view}__{field.name}"] = torch.from_numpy(np.concatenate([values, nan_row]))

    def __len__(self) -> int:
        return len(self._clicked)

    def __getitem__(self, index: int) -> "dict[str, torch.Tensor]":
        return {name: values[0] for name, values in self.batch([index]).items()}

    def __getitems__(self, indices: Sequence[int]) -> "list[dict[str, torch.Tensor]]":
        batch = self.batch(indices)
        return [{name: values[i] for name, values in batch.items()} for i in range(len(indices))]

    def batch(self, indices: Sequence[int]) -> "dict[str, torch.Tensor]":
        """Return some impressions at once.

        Args:
            indices: their positions in the dataset, from 0, in any order; a position may repeat, and a negative one
                counts from the end.

        Returns:
            `clicked` [n], and `VIEW__COLUMN` for each column: numbers [n], vectors [n, width]. All are float32 and in
            the order of `indices`; NaN for null and where an impression has no version of the view.

        Raises:
            IndexError: a position is beyond either end.
        """
        result = {"clicked": self._clicked[list(indices)]}
        for name, values in self._values.items():
            view = name.split("__", 1)[0]
            result[name] = values[self._row[view][list(indices)]]  # -1 is the last row: all NaN
        return result
