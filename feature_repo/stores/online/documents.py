"""Feast's `retrieve_online_documents_v2` on the index of `produce index`, with features from the online store.

The vector that is searched is the first requested feature that the index has, or `image_vector`. The index is that of
the encoder version in production. Feast 0.67 sorts the entities of a response by their keys but not their features, so
stock `feast.FeatureStore` pairs them wrongly unless the store returns them sorted: it does here, and stock Feast gives
the right rows in the order of the keys. `open_feature_store` gives them in the order of the distance.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from feast import FeatureView
from feast.infra.online_stores.online_store import OnlineStore
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from feast.repo_config import RepoConfig

from feature_repo.errors import InvalidInputError
from feature_repo.schema import PRODUCT_ID
from feature_repo.stores import sources

if TYPE_CHECKING:
    from feature_repo.index.product_index import ProductIndex

Document = tuple[datetime | None, EntityKey, dict[str, Value]]

DISTANCE = "distance"
DEFAULT_VECTOR = "image_vector"
METRICS = ("cosine", "l2", "inner_product", "ip", "dot")


class DocumentStore(OnlineStore):
    """An online store of products whose nearest ones are found by an index beside the offline tables."""

    _opened_index: "ProductIndex | None" = None

    def retrieve_online_documents_v2(
        self,
        config: RepoConfig,
        table: FeatureView,
        requested_features: list[str] | None,
        embedding: list[float] | None,
        top_k: int,
        distance_metric: str | None = None,
        query_string: str | None = None,
        filters: Any = None,
        include_feature_view_version_metadata: bool = False,
    ) -> list[Document]:
        """Return the nearest products, each with its features and `distance`, sorted by product id.

        The vectors have unit length, so every metric gives the same products: cosine and inner product as
        1 - the dot product, L2 as the length of the difference. A product without an online row has `distance` only.

        Args:
            config: the deployment; its offline store is one of Delta tables.
            table: a view of products.
            requested_features: names of features of the view.
            embedding: the query, of the index's encoder; it is scaled to unit length.
            top_k: most products.
            distance_metric: one of METRICS in any case; None is cosine.
            query_string: must be None: text is searched by `consume search`.
            filters: must be None.
            include_feature_view_version_metadata: must be False.

        Raises:
            InvalidInputError: an option is not supported; the embedding has another width or no length; or there are
                several indexes, and no encoder version is recorded as the one in production.
            NotFoundError: there is no index of the encoder version in production.
        """
        import numpy as np

        metric = (distance_metric or "cosine").lower()
        if metric not in METRICS or embedding is None or query_string is not None or filters is not None:
            raise InvalidInputError(
                "documents are found by an embedding, without query_string and filters, and with distance_metric "
                f"cosine, L2 or inner_product; got {distance_metric!r}; consume search takes sentences and filters"
            )
        if [entity.name for entity in table.entity_columns] != [PRODUCT_ID]:
            raise InvalidInputError(
                f"{table.name} is not a view of products; documents are found for {PRODUCT_ID} only"
            )
        query = np.asarray(embedding, np.float32)
        length = float(np.linalg.norm(query))
        if not np.isfinite(length) or length == 0:
            raise InvalidInputError("the embedding has no direction: it is zero, or has values that are not finite")
        index = self._open_index(config)
        names = requested_features or []
        vector = next((name for name in names if name in index.vectors), DEFAULT_VECTOR)
        rows, cosines = index.search(vector, query / length, top_k)
        ids = index.take(rows, [PRODUCT_ID])[PRODUCT_ID].to_pylist()
        distances = np.sqrt(np.maximum(2 - 2 * cosines, 0)) if metric == "l2" else 1 - cosines
        keys = [EntityKey(join_keys=[PRODUCT_ID], entity_values=[Value(string_val=one)]) for one in ids]
        features = self.online_read(config, table, keys, names)
        documents = [
            (timestamp, key, {**(found or {}), DISTANCE: Value(float_val=float(distance))})
            for (timestamp, found), key, distance in zip(features, keys, distances, strict=True)
        ]
        return sorted(documents, key=lambda document: document[1].entity_values[0].string_val)

    def _open_index(self, config: RepoConfig) -> "ProductIndex":
        """Return the index of the encoder version in production; it is opened again when it has changed."""
        from feature_repo.index.manifest import read_manifest
        from feature_repo.index.product_index import open_index
        from feature_repo.index.production import find_production_folder

        folder = find_production_folder(sources.find_local_folder(config), sources.read_production_version(config))
        opened = self._opened_index
        if opened is None or opened.folder != folder or opened.manifest != read_manifest(folder):
            opened = self._opened_index = open_index(folder)
        return opened


def order_by_distance(results: Sequence[Any], names: Sequence[str]) -> None:
    """Sort the rows of a response in place by ascending `distance`.

    Args:
        results: the columns of a response of Feast, as protobuf messages.
        names: their names; without `distance`, or without rows, nothing changes.
    """
    if DISTANCE not in names:
        return
    distances = [value.float_val for value in results[list(names).index(DISTANCE)].values]
    order = sorted(range(len(distances)), key=distances.__getitem__)
    for column in results:
        for field in ("values", "statuses", "event_timestamps"):
            values = list(getattr(column, field))
            if len(values) == len(order):
                column.ClearField(field)
                getattr(column, field).extend([values[row] for row in order])
