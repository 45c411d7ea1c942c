"""An exported training set as a torch dataset: what the trees get, and the vectors."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from consumers.ranking.training_set import JoinedView, encode_values
from feature_repo import extras
from feature_repo.errors import NotFoundError
from feature_repo.schema import CLICKED, PRODUCT_ID, USER_ID

extras.require("encode", "torch")

import torch  # noqa: E402 - named with its extra first
from torch.utils.data import Dataset  # noqa: E402


class ImpressionDataset(Dataset[dict[str, torch.Tensor]]):
    """The exported impressions as a map-style torch dataset.

    Items are impressions in time order. Each vector is held in memory once and gathered per item. An item is a
    dictionary of tensors:

    - `clicked`: float32, 0 or 1.
    - FEATURE: each scalar feature that the trees get (features.json lists and explains them). Numbers are float32, NaN
      for missing. Categories, among them `user_id` and `product_id`, are int64 codes, -1 for missing.
    - `VIEW__COLUMN`: each column of a view. Numbers, booleans and vectors are float32, NaN where the impression has no
      version of the view or the value is null. Texts, such as predicted tags, are int64 codes, -1 for missing.

    Codes are the same in every split. The log's own columns are not read, except `clicked`; context columns are among
    the features as `context_N`. `DataLoader` fetches a whole batch with one gather (`__getitems__`).

    Args:
        folder: an export with the format parquet.
        split: train, validation or test; any other name gives an empty dataset. None takes all impressions.
        columns: names to read; items have them in this order. None takes all: the features, then the views in the order
            of their names. An export of version 0.2 has no features.

    Attributes:
        category_sizes: name of each column of codes to the number of its codes, which are 0 to this number - 1: the
            size of an embedding table.
        vocabularies: name of each column of codes whose values are known (texts of views, `user_id` and `product_id`)
            to the values, in the order of the codes.

    Raises:
        NotFoundError: the folder has no such export, or a column does not exist.
        CorruptDataError: the vectors of one column have different lengths.
    """

    def __init__(self, folder: str | Path, *, split: str | None = None, columns: Sequence[str] | None = None) -> None:
        folder = Path(folder)
        file = folder / "impressions.parquet"
        if not file.is_file():
            raise NotFoundError(f"{file}: no such file; `consume export-training --format parquet` writes it")
        table = pq.read_table(file)
        rows = np.arange(len(table))
        if split is not None:
            rows = np.flatnonzero(np.array(table.column("split").to_pylist()) == split)
        self.category_sizes: dict[str, int] = {}
        self.vocabularies: dict[str, list[str]] = {}
        self._clicked = torch.from_numpy(table.column(CLICKED).to_numpy()[rows].astype(np.float32))
        self._values: dict[str, torch.Tensor] = {}
        self._row: dict[str, torch.Tensor] = {}
        """View to the row of its versions that each impression has; -1 for none, which is a last row of missing."""
        if (features := folder / "features.parquet").is_file():
            self._read_features(features, rows, columns)
            for name in {USER_ID, PRODUCT_ID} & self._values.keys():
                self.vocabularies[name] = table.column(name).unique().drop_null().to_pylist()
        for versions in sorted((folder / "versions").glob("*.parquet")):
            self._read_view(versions, table.column(f"{versions.stem}__row").take(pa.array(rows)), columns)
        self._select(folder, columns)

    def _select(self, folder: Path, columns: Sequence[str] | None) -> None:
        """Keep the named columns, in their order."""
        if columns is None:
            return
        if missing := [name for name in columns if name not in self._values]:
            known = pq.read_schema(folder / "features.parquet").names if (folder / "features.parquet").is_file() else []
            for file in sorted((folder / "versions").glob("*.parquet")):
                known += [f"{file.stem}__{name}" for name in pq.read_schema(file).names]
            raise NotFoundError(f"{folder}: no column {', '.join(missing)}; there are: {', '.join(known)}")
        self._values = {name: self._values[name] for name in columns}

    def _read_features(self, file: Path, rows: np.ndarray, columns: Sequence[str] | None) -> None:
        """Keep the scalar features, one value for each impression."""
        names = pq.read_schema(file).names
        table = pq.read_table(file, columns=[name for name in names if columns is None or name in columns])
        for name in table.column_names:
            column = table.column(name)
            if pa.types.is_integer(column.type):
                codes = column.fill_null(-1).to_numpy().astype(np.int64)
                self.category_sizes[name] = int(codes.max(initial=-1)) + 1
                self._values[name] = torch.from_numpy(codes[rows])
            else:
                self._values[name] = torch.from_numpy(column.to_numpy()[rows])

    def _read_view(self, file: Path, row: pa.ChunkedArray, columns: Sequence[str] | None) -> None:
        """Keep the columns of a view, with a last row of missing values for impressions without a version."""
        view = file.stem
        names = [name for name in pq.read_schema(file).names if columns is None or f"{view}__{name}" in columns]
        versions = pq.read_table(file, columns=names)
        self._row[view] = torch.from_numpy(row.fill_null(-1).to_numpy().astype(np.int64))
        joined = JoinedView(versions, np.zeros(len(versions), np.int64), np.arange(len(versions)))
        for field in versions.schema:
            name = f"{view}__{field.name}"
            value_type = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
            if pa.types.is_list(field.type) and pa.types.is_floating(field.type.value_type):
                values = joined.vectors(field.name)
            elif pa.types.is_floating(field.type) or pa.types.is_integer(field.type) or pa.types.is_boolean(field.type):
                values = joined.numbers(field.name)
            elif pa.types.is_string(value_type) or pa.types.is_large_string(value_type):
                column = versions.column(field.name).cast(value_type)
                self.vocabularies[name] = column.unique().drop_null().to_pylist()
                self.category_sizes[name] = len(self.vocabularies[name])
                self._values[name] = torch.from_numpy(np.append(encode_values(column), -1))
                continue
            else:
                continue
            nan_row = np.full((1, *values.shape[1:]), np.nan, np.float32)
            self._values[name] = torch.from_numpy(np.concatenate([values, nan_row]))

    def __len__(self) -> int:
        return len(self._clicked)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {name: values[0] for name, values in self.batch([index]).items()}

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, torch.Tensor]]:
        batch = self.batch(indices)
        return [{name: values[i] for name, values in batch.items()} for i in range(len(indices))]

    def batch(self, indices: Sequence[int]) -> dict[str, torch.Tensor]:
        """Return some impressions at once.

        Args:
            indices: their positions in the dataset, from 0, in any order; a position may repeat, and a negative one
                counts from the end.

        Returns:
            `clicked` [n], and each column: numbers and codes [n], vectors [n, width], in the order of `indices`.

        Raises:
            IndexError: a position is beyond either end.
        """
        chosen = torch.as_tensor(indices, dtype=torch.int64)
        result = {"clicked": self._clicked[chosen]}
        for name, values in self._values.items():
            view, separator, _ = name.partition("__")
            result[name] = values[self._row[view][chosen] if separator else chosen]  # -1 is the last row: missing
        return result
