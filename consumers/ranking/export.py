"""Export a training set: each vector once, and the scalar features in formats that tree libraries read.

    FOLDER/impressions.parquet      the log in time order: its columns, `split` (train, validation, test), and for each
                                    view an int32 `VIEW__row`: the row of versions/VIEW.parquet, null for none
    FOLDER/versions/VIEW.parquet    the rows of the view that at least one impression has, each once
    FOLDER/features.parquet         the scalar features of each impression, in the order of impressions.parquet:
                                    float32, NaN for missing, or int32 codes of a category, null for missing
    FOLDER/tabular-SPLIT.libsvm     label, then feature:value, features numbered from 0; missing values are left out
    FOLDER/tabular-SPLIT.bin        the same for LightGBM, in the bins of the training rows
    FOLDER/features.json            the features in order, which of them are categories, what each means, the rows of
                                    each split, and LightGBM's parameters: a .bin cannot be read with others

A split is train, validation or test; one without rows has no file. The export is written beside FOLDER and renamed at
the end, so that a killed export leaves no folder that looks complete. `ImpressionDataset` (impression_dataset.py) reads
the Parquet files into torch.
"""

import json
import logging
import shutil
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from consumers.ranking.baseline_features import map_context_columns
from consumers.ranking.feature_meaning import describe_feature
from consumers.ranking.training_set import RankingTrainingSet
from feature_repo.errors import InvalidInputError, UsageError
from feature_repo.files.atomic_write import replace_atomically

log = logging.getLogger(__name__)

PARQUET, LIBSVM, LIGHTGBM = "parquet", "libsvm", "lightgbm"
FORMATS = (PARQUET, LIBSVM, LIGHTGBM)
SPLITS = ("train", "validation", "test")
ROWS_PER_BLOCK = 20_000
"""Rows that are written to a libsvm file at a time."""
LARGE_LIBSVM_BYTES = 250_000_000
"""Size from which the libsvm files are announced by a warning before they are written."""
EXPORT_FILES = (
    "impressions.parquet",
    "versions",
    "features.parquet",
    "features.json",
    *(f"tabular-{split}.{ending}" for split in SPLITS for ending in ("libsvm", "bin")),
    "tabular.libsvm",  # version 0.2
    "tabular.bin",
)


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

    Args:
        data: the joined log [n].
        split: train, validation or test for each impression [n].
        features: the scalar features by name, float32 [n] or int32 category codes [n], negative for missing.
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
            _write_parquet(data, split, features, unfinished)
        if LIGHTGBM in formats:
            progress("LightGBM files")
            _write_lightgbm(data, split, features, unfinished)
        if LIBSVM in formats:
            progress("libsvm files")
            _write_libsvm(data, split, features, unfinished)
        content = _describe(data, split, features)
        (unfinished / "features.json").write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")
        shutil.rmtree(folder, ignore_errors=True)
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return {str(file.relative_to(folder)): file.stat().st_size for file in files}


def _describe(
    data: RankingTrainingSet, split: NDArray[np.str_], features: Mapping[str, NDArray[Any]]
) -> dict[str, object]:
    """The content of features.json."""
    from consumers.ranking import lightgbm_ranker

    context = map_context_columns(data)
    return {
        "features": list(features),
        "categories": list(lightgbm_ranker.list_categories(features)),
        "meaning": {name: describe_feature(name, context) for name in features},
        "rows": {name: int((split == name).sum()) for name in SPLITS},
        "lightgbm": {name: value for name, value in lightgbm_ranker.SETTINGS.items() if name != "num_threads"},
    }


def _write_parquet(
    data: RankingTrainingSet, split: NDArray[np.str_], features: Mapping[str, NDArray[Any]], folder: Path
) -> None:
    """Write impressions.parquet, features.parquet, and the versions that impressions have, one file for each view."""
    table = data.impressions.append_column("split", pa.array(split).dictionary_encode())
    (folder / "versions").mkdir()
    for name, view in data.views.items():
        has_row = view.row_index >= 0
        used = np.unique(view.row_index[has_row])
        row = np.where(has_row, np.searchsorted(used, view.row_index), -1)
        table = table.append_column(f"{name}__row", pa.array(row.astype(np.int32), mask=~has_row))
        pq.write_table(view.versions.take(pa.array(used)), folder / "versions" / f"{name}.parquet")
    pq.write_table(table, folder / "impressions.parquet")
    columns = {
        name: pa.array(values, mask=values < 0) if np.issubdtype(values.dtype, np.integer) else pa.array(values)
        for name, values in features.items()
    }
    pq.write_table(pa.table(columns), folder / "features.parquet", compression="zstd")


def _write_lightgbm(
    data: RankingTrainingSet, split: NDArray[np.str_], features: Mapping[str, NDArray[Any]], folder: Path
) -> None:
    """Write LightGBM's file of each split; validation and test have the bins of the training rows."""
    import lightgbm

    from consumers.ranking import lightgbm_ranker

    train = split == "train"
    binned = lightgbm_ranker.bin_features(features, data.clicked, train, np.zeros_like(train)).train
    binned.save_binary(str(folder / "tabular-train.bin"))
    for name in SPLITS[1:]:
        rows = split == name
        if rows.any():
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "categorical_feature in param dict is overridden", UserWarning)
                part = lightgbm.Dataset(
                    lightgbm_ranker.to_matrix(features, rows),
                    data.clicked[rows],
                    reference=binned,
                    feature_name=list(features),
                    params=lightgbm_ranker.SETTINGS,
                ).construct()
            part.save_binary(str(folder / f"tabular-{name}.bin"))


def _write_libsvm(
    data: RankingTrainingSet, split: NDArray[np.str_], features: Mapping[str, NDArray[Any]], folder: Path
) -> None:
    """Write the libsvm file of each split; warn first if they become large."""
    from consumers.ranking import lightgbm_ranker

    def format_rows(rows: NDArray[np.int64]) -> list[str]:
        chosen = {name: values[rows] for name, values in features.items()}
        matrix = lightgbm_ranker.to_matrix(chosen, np.ones(len(rows), bool))
        return _format_libsvm(matrix, data.clicked[rows])

    sample = np.linspace(0, len(split) - 1, min(len(split), 1_000)).astype(np.int64)
    expected = sum(map(len, format_rows(sample))) * len(split) // max(len(sample), 1)
    if expected >= LARGE_LIBSVM_BYTES:
        log.warning(
            "libsvm: about %s bytes of text for %s rows; parquet holds the same features in a fraction of it",
            f"{expected:,}",
            f"{len(split):,}",
        )
    for name in SPLITS:
        rows = np.flatnonzero(split == name)
        if len(rows):
            with (folder / f"tabular-{name}.libsvm").open("w") as file:
                for start in range(0, len(rows), ROWS_PER_BLOCK):
                    file.writelines(format_rows(rows[start : start + ROWS_PER_BLOCK]))


def _format_libsvm(rows: NDArray[np.float32], clicked: NDArray[np.integer]) -> list[str]:
    """One line per row. NaN is left out and zeros are written, because trees treat missing and zero differently."""
    lines = []
    for label, row in zip(clicked.tolist(), rows, strict=True):
        columns = np.flatnonzero(~np.isnan(row))
        pairs = " ".join(f"{i}:{value:.9g}" for i, value in zip(columns.tolist(), row[columns].tolist(), strict=True))
        lines.append(f"{label} {pairs}\n")
    return lines


def __getattr__(name: str) -> Any:
    """Return `ImpressionDataset`, which version 0.2 had in this module."""
    if name == "ImpressionDataset":
        from consumers.ranking.impression_dataset import ImpressionDataset

        return ImpressionDataset
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
