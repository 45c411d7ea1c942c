"""Whom a request asks for: Feast's entity rows as columns of join keys."""

import warnings
from collections.abc import Mapping, Sequence, Set
from typing import Any

from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import RepeatedValue, Value
from feast.value_type import ValueType

from feature_repo.online import entity_keys

EntityRows = Sequence[Mapping[str, Any]] | Mapping[str, Any]


def by_column(entity_rows: EntityRows) -> dict[str, list[Any]]:
    """Entity rows as columns.

    Raises:
        ValueError: the rows do not all have the same keys, or the columns not all the same length.
    """
    if isinstance(entity_rows, Mapping):
        found = {
            name: list(one.val) if isinstance(one, RepeatedValue) else list(one) for name, one in entity_rows.items()
        }
    else:
        names = entity_rows[0].keys()
        if any(row.keys() != names for row in entity_rows):
            raise ValueError("All entity_rows must have the same keys.")
        found = {name: [row[name] for row in entity_rows] for name in names}
    if len({len(one) for one in found.values()}) > 1:
        raise ValueError("All entity rows must have the same columns.")
    return found


def join_keys(
    given: Mapping[str, list[Any]], known: Set[str], of_entity: Mapping[str, str], types: Mapping[str, ValueType]
) -> dict[str, list[Any]]:
    """The join keys among the columns of a request, each of its entity's type; columns that are none are left out.

    Args:
        known: the join keys of the views asked for.
        of_entity: the join key of each entity; that a column may be called like its entity is deprecated by Feast.
        types: of the join keys.
    """
    found: dict[str, list[Any]] = {}
    for name, column in given.items():
        key = name
        if name not in known:
            if name not in of_entity:
                continue
            key = of_entity[name]
            warnings.warn("Using entity name is deprecated. Use join_key instead.", stacklevel=4)
        found[key] = _typed(column, types.get(key, ValueType.UNKNOWN))
    return found


def _typed(column: list[Any], type_: ValueType) -> list[Any]:
    if any(isinstance(value, Value) for value in column):
        column = [getattr(value, value.WhichOneof("val")) for value in column]
    if type_ in (ValueType.INT32, ValueType.INT64):
        return [int(value) for value in column]
    if type_ == ValueType.STRING:
        return [str(value) for value in column]
    if type_ == ValueType.UNIX_TIMESTAMP:
        return [int(value.timestamp()) if hasattr(value, "timestamp") else int(value) for value in column]
    return column


def keys_of(prefix: bytes, entities: Sequence[EntityKey]) -> list[bytes]:
    """The keys of Feast's entity keys, which all have the same join keys."""
    if not entities:
        return []
    names = list(entities[0].join_keys)
    order = sorted(range(len(names)), key=names.__getitem__)
    texts = [[_value(entity.entity_values[i]) for entity in entities] for i in order]
    return entity_keys.make_keys(prefix, texts or [[""] * len(entities)])


def _value(value: Value) -> Any:
    kind = value.WhichOneof("val")
    return None if kind is None else getattr(value, kind)
