"""Which table and columns a request means: Feast's views, references, aliases and mappings resolved."""

from feast import FeatureView, RepoConfig

from feature_repo.errors import VitrineError
from feature_repo.offline.training_set import ViewTable
from feature_repo.stores import sources
from feature_repo.stores.feast_compat import DUMMY_ENTITY_ID, parse_feature_ref


def requested_view_tables(
    config: RepoConfig, feature_views: list[FeatureView], feature_refs: list[str], full_feature_names: bool
) -> list[ViewTable]:
    """One `ViewTable` per feature view of the request, in its order.

    References to on-demand views are left out; Feast computes those from the rest.
    """
    return [_view_table(config, view, _features_of(view, feature_refs), full_feature_names) for view in feature_views]


def whole_view_table(config: RepoConfig, view: FeatureView) -> ViewTable:
    """The table of a feature view, with all of its features."""
    return _view_table(config, view, [feature.name for feature in view.features], full_feature_names=False)


def _features_of(view: FeatureView, feature_refs: list[str]) -> list[str]:
    """The features asked of a view, in the order asked, each once."""
    features = []
    for reference in feature_refs:
        name, version, feature = parse_feature_ref(reference)
        if (name if version is None else f"{name}@v{version}") == view.projection.name_to_use():
            features.append(feature)
    return list(dict.fromkeys(features))


def _view_table(config: RepoConfig, view: FeatureView, features: list[str], full_feature_names: bool) -> ViewTable:
    source = sources.file_source(view.batch_source, f"feature view `{view.name}`")
    if not source.timestamp_field:
        raise VitrineError(f"feature view `{view.name}`: its source `{source.name}` names no timestamp_field")
    table = sources.open_table(config, source)
    physical = {
        feature: column for column, feature in source.field_mapping.items() if column in table.schema.names
    }  # a mapping of a column that the table has not is no mapping: Feast lets sources share one
    prefix = view.projection.name_alias or view.name
    renamed = view.projection.join_key_map
    return ViewTable(
        name=view.projection.name_to_use(),
        table=table,
        keys={
            renamed.get(key.name, key.name): physical.get(key.name, key.name)
            for key in view.entity_columns
            if key.name != DUMMY_ENTITY_ID
        },
        features={
            f"{prefix}__{feature}" if full_feature_names else feature: physical.get(feature, feature)
            for feature in features
        },
        event_timestamp=physical.get(source.timestamp_field, source.timestamp_field),
        created_timestamp=physical.get(source.created_timestamp_column, source.created_timestamp_column) or None,
        ttl=view.ttl or None,
        kept_since=sources.kept_since(config, source),
    )
