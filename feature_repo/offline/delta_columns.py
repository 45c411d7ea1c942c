"""Columns of Delta tables: which of them earlier versions lack, and how they are written."""

from collections.abc import Mapping, Set
from typing import Literal

import pyarrow as pa
from deltalake import ColumnProperties, DeltaTable, WriterProperties

from feature_repo.location import Location
from feature_repo.schema import CAPTION_TABLE, CATALOGUE_TABLE, INPUT_DIGEST, OPTIONAL_PRODUCTS, TAGS_TABLE

ADDED_COLUMNS: Mapping[str, Set[str]] = {
    CATALOGUE_TABLE: set(OPTIONAL_PRODUCTS.names),
    TAGS_TABLE: {"further_tags", "further_tag_probabilities"},
    CAPTION_TABLE: {"stated", "missing_reason", "style", "language", "encoder_version"},
}
"""Columns that a table of an earlier version lacks, beside `input_digest`; its rows have null there."""


def find_schema_mode(path: Location, table: DeltaTable, columns: pa.Schema) -> Literal["merge"] | None:
    """Return "merge" if a table and new rows differ only in columns that older versions lack.

    The rows without such a column then have null there. Every other difference stays an error.
    """
    different = {field.name for field in table.schema().fields} ^ set(columns.names)
    added = {INPUT_DIGEST, *ADDED_COLUMNS.get(path.name, ())}
    return "merge" if different and different <= added else None


def choose_writer_properties(columns: pa.Schema) -> WriterProperties | None:
    """Return Parquet properties that turn dictionaries off for lists, if the table has vectors; else None.

    Numbers of a vector hardly repeat: a dictionary of them takes five times as long to write and to read and a quarter
    more space. Parquet columns inside a list cannot be named here, so the setting applies to all lists of the table;
    repetitions in other lists are left to compression.
    """
    if not any(pa.types.is_list(one.type) and pa.types.is_floating(one.type.value_type) for one in columns):
        return None
    plain = [column.name for column in columns if not pa.types.is_nested(column.type)]
    return WriterProperties(
        compression="SNAPPY",
        default_column_properties=ColumnProperties(dictionary_enabled=False, statistics_enabled="NONE"),
        column_properties={
            name: ColumnProperties(dictionary_enabled=True, statistics_enabled="PAGE") for name in plain
        },
    )
