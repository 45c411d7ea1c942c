"""Tables that others hand in: Parquet or CSV, read whole, as they are."""

from collections.abc import Collection
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from feature_repo.errors import VitrineError


def read(file: Path, text: Collection[str] = ()) -> pa.Table:
    """Read a table from a `.parquet` or `.csv` file, or from a folder of Parquet parts.

    Args:
        file: its suffix says what it is.
        text: columns that a CSV gives as text, whatever they look like, to be checked row by row afterwards; the types
            of its others are inferred. An empty field of a CSV is null.

    Raises:
        VitrineError: there is no such file, its suffix is another, or it cannot be read.
    """
    if not file.exists():
        raise VitrineError(f"{file}: no such file; wanted a table in Parquet or CSV")
    suffix = ".parquet" if file.is_dir() else file.suffix.lower()
    try:
        if suffix == ".parquet":
            return pyarrow.parquet.read_table(file)
        if suffix == ".csv":
            return pyarrow.csv.read_csv(
                file,
                parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True),
                convert_options=pyarrow.csv.ConvertOptions(
                    column_types={name: pa.string() for name in text}, strings_can_be_null=True, null_values=[""]
                ),
            )
    except (pa.ArrowException, OSError, ValueError) as error:
        said = " ".join(str(error).split())
        raise VitrineError(f"{file}: cannot be read as {suffix[1:]} ({said}); write it again or convert it") from error
    raise VitrineError(f"{file}: a table's name ends in .parquet or .csv; convert or rename it")
