"""The record of encoder upgrades: what `record_step` did not write is one error that names the step."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from feature_repo import schema
from feature_repo.errors import CorruptDataError, NotFoundError
from feature_repo.offline import delta, production

GOOD: dict[str, Any] = {
    "sequence": 1,
    "state": "shadow",
    "production_version": "a@1",
    "candidate_version": "b@2",
    "options": "{}",
    "created_timestamp": datetime(2026, 1, 1, tzinfo=UTC),
}


def write_row(folder: Path, **changes: object) -> None:
    delta.append(folder / schema.UPGRADES_TABLE, pa.Table.from_pylist([GOOD | changes], schema.UPGRADES))


CHANGES = (
    {"state": "flying"},
    {"state": None},
    {"options": "{"},
    {"options": "[]"},
    {"options": None},
    {"production_version": None},
)


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_a_step_that_cannot_be_read_is_one_error(tmp_path: Path, change: dict[str, object]) -> None:
    write_row(tmp_path)
    assert production.read_version(tmp_path) == "a@1"
    write_row(tmp_path, sequence=2, **change)
    with pytest.raises(
        CorruptDataError, match=r"`encoder_upgrades` under .*: step 2 is none of `produce upgrade`"
    ) as refused:
        production.read_current(tmp_path)
    assert "\n" not in str(refused.value)


def test_a_table_of_another_schema_is_one_error(tmp_path: Path) -> None:
    delta.append(tmp_path / schema.UPGRADES_TABLE, pa.table({"a": [1]}))
    with pytest.raises(NotFoundError, match=r"table `encoder_upgrades` under .* has no column"):
        production.read_current(tmp_path)
