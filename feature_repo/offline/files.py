"""Tables that others hand in: Parquet or CSV, as they are, whole or block by block."""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from feature_repo.errors import VitrineError


def read(file: Path, text: Collection[str] = (), *, misspelt: bool = False) -> pa.Table:
    """Read a table from a `.parquet` or `.csv` file, or from a folder of Parquet parts.

    Args:
        file: its suffix says what it is.
        text: columns that a CSV gives as text, whatever they look like, to be checked row by row afterwards; the types
            of its others are inferred. An empty field of a CSV is null.
        misspelt: let those columns hold bytes that are not UTF-8, as Parquet's always may, for `checks.spelt` to find;
            else a CSV with such bytes is an error.

    Raises:
        VitrineError: there is no such file, its suffix is another, it cannot be read, or two columns have one name.
    """
    suffix = _suffix(file)
    with _explained(file, suffix):
        if suffix == ".parquet":
            if file.is_file():
                _refuse_doubles(file, pyarrow.parquet.read_schema(file).names)
            return pyarrow.parquet.read_table(file)
        if suffix == ".csv":
            table = pyarrow.csv.read_csv(
                file,
                parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True),
                convert_options=pyarrow.csv.ConvertOptions(
                    column_types={name: pa.binary() if misspelt else pa.string() for name in text},
                    strings_can_be_null=True,
                    null_values=[""],
                ),
            )
            _refuse_doubles(file, table.column_names)
            for place, name in enumerate(table.column_names):
                if misspelt and name in text:
                    chunks = [chunk.view(pa.string()) for chunk in table[name].chunks]
                    table = table.set_column(place, name, pa.chunked_array(chunks, pa.string()))
            return table
    raise VitrineError(f"{file}: a table's name ends in .parquet or .csv; convert or rename it")


def blocks(file: Path, rows: int, text: Collection[str] = ()) -> Iterator[pa.Table]:
    """The same, in order, in tables of `rows` rows or fewer; of Parquet only those being read are in memory.

    There is at least one block, be it empty. Text may be misspelt.

    Raises:
        VitrineError: as `read` does, maybe after some blocks.
    """
    if not file.is_file() or _suffix(file) != ".parquet":
        whole = read(file, text, misspelt=True)
        for start in range(0, max(1, whole.num_rows), rows):
            yield whole.slice(start, rows)
        return
    with _explained(file, ".parquet"), pyarrow.parquet.ParquetFile(file) as opened:
        _refuse_doubles(file, opened.schema_arrow.names)
        if not opened.metadata.num_rows:
            yield opened.schema_arrow.empty_table()
        for batch in opened.iter_batches(batch_size=rows):
            yield pa.Table.from_batches([batch])


def _suffix(file: Path) -> str:
    if not file.exists():
        raise VitrineError(f"{file}: no such file; wanted a table in Parquet or CSV")
    return ".parquet" if file.is_dir() else file.suffix.lower()


def _refuse_doubles(file: Path, names: Sequence[str]) -> None:
    """Columns without a name are the caller's to look at."""
    twice = [name for name in dict.fromkeys(names) if name and names.count(name) > 1]
    if twice:
        raise VitrineError(f"{file}: there is more than one column {', '.join(twice)}; leave one or rename the others")


@contextmanager
def _explained(file: Path, suffix: str) -> Iterator[None]:
    """What Arrow says of a broken file, in one line."""
    try:
        yield
    except (pa.ArrowException, OSError, ValueError) as error:
        said = " ".join(str(error).split())
        raise VitrineError(f"{file}: cannot be read as {suffix[1:]} ({said}); write it again or convert it") from error
