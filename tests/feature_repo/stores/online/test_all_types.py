"""Fields of every type: Feast's calls and OnlineReader return the values that were written."""

import decimal
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import feast.types as types
import pytest
from feast import FeatureStore, FeatureView, Field
from feast.protos.feast.types.Value_pb2 import Value
from feast.type_map import feast_value_type_to_python_type, python_values_to_proto_values
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from consumers.online import OnlineReader
from feature_repo.arrow import field
from feature_repo.stores.online import values
from tests.feature_repo.stores.online.feast_world import NOW, entity, online, product, project, source

TIMES = st.integers(-(2**31), 2**32).map(lambda seconds: datetime.fromtimestamp(seconds, UTC))
TEXT = st.text(max_size=8)
SCALARS: dict[Any, st.SearchStrategy[Any]] = {
    types.Bool: st.booleans(),
    types.Int32: st.integers(-(2**31), 2**31 - 1),
    types.Int64: st.integers(-(2**63) + 1, 2**63 - 1),
    types.Float32: st.floats(width=32, allow_nan=False),
    types.Float64: st.floats(allow_nan=False),
    types.String: TEXT,
    types.Bytes: st.binary(max_size=8),
    types.UnixTimestamp: TIMES,
    types.Uuid: st.uuids(),
    types.TimeUuid: st.uuids(version=1),
    types.Decimal: st.decimals(allow_nan=False, allow_infinity=False),
}
LISTED = SCALARS
VALUES: dict[str, tuple[Any, st.SearchStrategy[Any]]] = {
    **{str(kind): (kind, one) for kind, one in SCALARS.items()},
    **{f"{kind}_list": (types.Array(kind), st.lists(one, max_size=3)) for kind, one in LISTED.items()},
    **{f"{kind}_set": (types.Set(kind), st.sets(one, max_size=3)) for kind, one in LISTED.items()},
    "Json": (types.Json, st.sampled_from(['{"a": 1}', "[1, 2]", "null", '"text"'])),
    "PdfBytes": (types.PdfBytes, st.binary(max_size=8)),
    "ImageBytes": (types.ImageBytes, st.binary(max_size=8)),
    "Map": (types.Map, st.dictionaries(TEXT, TEXT, max_size=2)),
    "Map_list": (types.Array(types.Map), st.lists(st.dictionaries(TEXT, TEXT, max_size=2), max_size=2)),
    "Struct": (types.Struct({"a": types.Int64}), st.fixed_dictionaries({"a": st.integers(0, 9)})),
    "Nested": (types.Array(types.Array(types.Int64)), st.lists(st.lists(st.integers(0, 9), max_size=2), max_size=2)),
    "ScalarMap": (types.ScalarMap, st.dictionaries(st.integers(0, 9), st.integers(0, 9), max_size=2)),
    "Zoned": (types.ZonedTimestamp, TIMES),
}
everything = FeatureView(
    name="everything",
    entities=[product],
    schema=[Field(name=name, dtype=kind) for name, (kind, _) in VALUES.items()],
    source=source("everything"),
)


@pytest.fixture(scope="module")
def wide_store(online_config: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[FeatureStore]:
    with project(tmp_path_factory.mktemp("wide"), online_config, [product, everything], project="wide") as opened:
        yield opened


def proto(kind: Any, value: Any) -> Value:
    """Return a value as Feast's protobuf."""
    if value is None:
        return Value()
    return python_values_to_proto_values([value], kind.to_value_type())[0]


@settings(
    max_examples=settings.default.max_examples * 3 // 5,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=st.data())
def test_written_values_are_read_back(wide_store: FeatureStore, url: str, data: st.DataObject) -> None:
    rows = data.draw(
        st.lists(
            st.fixed_dictionaries({name: st.none() | one for name, (_, one) in VALUES.items()}), min_size=1, max_size=3
        )
    )
    protos = [{name: proto(VALUES[name][0], value) for name, value in row.items()} for row in rows]
    batch = [(entity(product_id=str(i)), row, NOW, None) for i, row in enumerate(protos)]
    online(wide_store).online_write_batch(wide_store.config, everything, batch, None)
    read = online(wide_store).online_read(wide_store.config, everything, [key for key, _, _, _ in batch])
    assert read == [(NOW, row) for row in protos]
    refs = [f"everything:{name}" for name in VALUES]
    ids = [str(i) for i in range(len(rows))]
    response = wide_store.get_online_features(refs, {"product_id": ids})
    by_name = dict(zip(response.proto.metadata.feature_names.val, response.proto.results, strict=True))
    python = response.to_dict()
    fetched = OnlineReader(url, project="wide").fetch("everything", ids)
    for name in VALUES:
        expected = [row[name] for row in protos]
        assert list(by_name[name].values) == expected
        expected_python = [feast_value_type_to_python_type(one, VALUES[name][0].to_value_type()) for one in expected]
        assert python[name] == expected_python
        assert [_as_proto(name, one) for one in fetched.arrow(name).to_pylist()] == expected


def _as_proto(name: str, value: Any) -> Value:
    """Return a value of the reader as Feast's protobuf."""
    kind = VALUES[name][0]
    if value is None:
        return Value()
    if name in ("Map", "Map_list", "Struct", "Nested", "ScalarMap", "Zoned"):
        return Value.FromString(value)
    if isinstance(value, list) and isinstance(kind, types.Set):
        message = Value()
        getattr(message, f"{kind.to_value_type().name.lower()}_val").val.extend(map(_seconds, value))
        return message
    if kind in (types.Uuid, types.TimeUuid):
        value = uuid.UUID(value)
    if kind == types.Decimal:
        value = decimal.Decimal(value)
    return python_values_to_proto_values([value], kind.to_value_type())[0]


def _seconds(value: Any) -> Any:
    return int(value.timestamp()) if isinstance(value, datetime) else value


def test_feasts_value_for_a_missing_timestamp_is_read_as_null() -> None:
    column = values.to_column(
        field.Field("t", "unix_timestamp"), [Value(unix_timestamp_val=-(2**63)), Value(unix_timestamp_val=0)]
    )
    assert values.to_python(column) == [None, datetime(1970, 1, 1, tzinfo=UTC)]
