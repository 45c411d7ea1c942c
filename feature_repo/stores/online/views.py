"""Feast's feature views as the online stores' own."""

from typing import Any

from feast import Field as FeastField
from feast.feature_view import DUMMY_ENTITY_ID
from feast.infra.online_stores.helpers import compute_versioned_name
from feast.repo_config import RepoConfig

from feature_repo.tables.layout import NUMBERS, Field, Layout
from feature_repo.tables.record import View


def stored_name(config: RepoConfig, table: Any) -> str:
    """What a feature view is called in the online store: its version is part of the name where Feast keeps versions."""
    return compute_versioned_name(table, config.registry.enable_online_feature_view_versioning)


def stored_view(config: RepoConfig, table: Any) -> View:
    """A feature view (of any of Feast's kinds) as it is stored now.

    Raises:
        VitrineError: the tag `storage` of a field does not fit its type.
    """
    ttl = getattr(table, "ttl", None)
    join_keys = {column.name: _type(column) for column in table.entity_columns if column.name != DUMMY_ENTITY_ID}
    return View(
        name=stored_name(config, table),
        join_keys=tuple(sorted(join_keys.items())),
        ttl=round(ttl.total_seconds() * 1_000_000) if ttl else 0,
        layouts=(Layout.of(map(stored_field, table.features)),),
    )


def stored_field(field: FeastField) -> Field:
    """A feature as it is stored: its tag `storage` says in which form, its `vector_length` how long its lists are."""
    bare = Field(field.name, _type(field))
    is_vector = bare.is_list and bare.base in NUMBERS
    return Field(
        field.name,
        bare.type,
        field.tags.get("storage", "plain"),
        getattr(field, "vector_length", 0) if is_vector else 0,
    )


def _type(field: FeastField) -> str:
    return field.dtype.to_value_type().name.lower()
