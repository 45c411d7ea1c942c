"""Fit an adapter on products that two encoders have encoded, and measure its loss on held-out products.

The maps of images and texts are fitted on the vectors of both versions, and the space of fused vectors on the target's
fused vectors, so that the target's checkpoint is not needed. Nothing is encoded.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from feature_repo.arrow.take import to_matrix
from feature_repo.config import Settings
from feature_repo.errors import ConflictError, InvalidInputError, NotFoundError
from feature_repo.evaluation.nearest_products import compute_shared, find_nearest_products
from feature_repo.features.similarity import normalize_rows
from feature_repo.files.atomic_write import replace_atomically
from feature_repo.fusion import SAME_PRODUCT, Space, fuse
from feature_repo.offline import delta, versions
from feature_repo.schema import CREATED_TIMESTAMP, EMBEDDING_TABLE, ENCODER_VERSION, EVENT_TIMESTAMP, PRODUCT_ID
from producers.encoders.adapted.encoder import Adapter, save_adapter
from producers.encoders.adapted.vector_map import MapKind, VectorMap, fit_map, fit_ridge
from producers.encoders.checkpoint_version import NAME_FILE, check_name

Vectors = NDArray[np.float32]

VECTORS = {"image": ("image_vector", "image_hash"), "text": ("text_vector", "title_hash")}
"""Modality to its column of vectors and the column with the hash of the content."""
FUSED = "fused"
MAX_PRODUCTS = 60_000
"""Products that are read; of more, a random sample."""
HELD_OUT_SHARE = 0.2
"""Share of the products that the loss is measured on."""
MAX_HELD_OUT = 4_000
"""Held-out products at most."""
MIN_PRODUCTS_PER_DIMENSION = 4
"""With fewer products to fit on, for each dimension of the wider encoder, an adapter is refused."""
TOP_K = 10


@dataclass(frozen=True)
class AdapterLoss:
    """What an adapter keeps of one kind of vectors, on held-out products."""

    vectors: str
    """"image", "text" or "fused"."""
    recall: tuple[float, float, float]
    """Share of the TOP_K nearest products by the target's vectors that the adapted vectors find too; lower and upper
    bound of its 95% interval over products."""
    source_recall: float
    """The same share by the source's own vectors."""
    cosine: float
    """Mean cosine of a product's adapted vector and the target's."""
    products: int
    """Held-out products that have the vector in both versions."""

    def __str__(self) -> str:
        value, low, high = self.recall
        return (
            f"{self.vectors}: recall@{TOP_K} kept {value:.3f} [{low:.3f}, {high:.3f}], without the adapter "
            f"{self.source_recall:.3f}; cosine {self.cosine:.3f}; {self.products:,} held-out products"
        )


@dataclass(frozen=True)
class AdapterSummary:
    """What `train_adapter` did."""

    adapter: Adapter
    fitted: int
    """Products that the maps were fitted on."""
    losses: tuple[AdapterLoss, ...]

    def __str__(self) -> str:
        head = f"{self.adapter.kind} map from {self.adapter.source_version} to {self.adapter.target_version}"
        return "\n".join([f"{head}, fitted on {self.fitted:,} products", *(f"  {loss}" for loss in self.losses)])


@dataclass(frozen=True)
class PairedVectors:
    """Vectors of n products by two encoders; NaN rows where a product has no such vector, or of another content."""

    source: Mapping[str, Vectors]
    """"image", "text" and "fused" to vectors [n, source width]."""
    target: Mapping[str, Vectors]
    """The same of the other encoder."""

    def __len__(self) -> int:
        """Return the number of products."""
        return len(self.source[FUSED])

    def take(self, rows: NDArray[np.int64]) -> "PairedVectors":
        """Return some products."""
        source, target = ({name: each[rows] for name, each in side.items()} for side in (self.source, self.target))
        return PairedVectors(source, target)


def train_adapter(
    settings: Settings,
    *,
    encoder: str,
    source_version: str,
    target_version: str,
    kind: MapKind,
    output: Path,
    name: str | None,
    seed: int,
) -> AdapterSummary:
    """Fit an adapter, measure its loss, and write it to a folder that `load` opens as an encoder.

    Args:
        settings: the deployment, whose table of vectors has both versions.
        encoder: directory or hub name of the source encoder.
        source_version: its version.
        target_version: the version whose space the mapped vectors come close to.
        kind: how vectors are mapped.
        output: the folder to write, which must not exist.
        name: name of the adapted encoder; None takes that of the folder.
        seed: of the split, the samples, and the network.

    Raises:
        NotFoundError: there is no table of vectors.
        InvalidInputError: both versions are the same, or too few products have vectors of both.
        ConflictError: the folder exists.
    """
    if output.exists():
        raise ConflictError(f"{output}: exists already; name another folder, or remove it")
    if name is not None:
        check_name(name)
    pairs = read_pairs(settings, source_version, target_version, seed)
    order = np.random.default_rng(seed).permutation(len(pairs))
    count = min(MAX_HELD_OUT, round(len(pairs) * HELD_OUT_SHARE))
    held_out, fitted = (pairs.take(np.sort(rows)) for rows in (order[:count], order[count:]))
    adapter = fit_adapter(fitted, source_version, target_version, kind, seed=seed)
    with replace_atomically(output) as folder:
        folder.mkdir()
        save_adapter(adapter, encoder, folder)
        if name is not None:
            (folder / NAME_FILE).write_text(name + "\n")
    return AdapterSummary(adapter, len(fitted), tuple(measure_losses(adapter, held_out)))


def read_pairs(settings: Settings, source_version: str, target_version: str, seed: int) -> PairedVectors:
    """Read the newest vectors of the products that both encoders have encoded, of at most MAX_PRODUCTS.

    Raises:
        NotFoundError: there is no table of vectors.
        InvalidInputError: both versions are the same, or a version has no vectors.
    """
    if source_version == target_version:
        raise InvalidInputError(f"{source_version} is both source and target; name two encoders")
    dataset = delta.open_dataset(settings.table(EMBEDDING_TABLE))
    ids = []
    for version in (source_version, target_version):
        rows = dataset.to_table(columns=[PRODUCT_ID], filter=pc.field(ENCODER_VERSION) == version)
        if not len(rows):
            raise NotFoundError(
                f"table `{EMBEDDING_TABLE}` has no vectors of {version}; run `produce embeddings` with that encoder, "
                "for some products at least"
            )
        ids.append(pc.unique(rows[PRODUCT_ID]))
    shared = ids[0].filter(pc.is_in(ids[0], value_set=ids[1])).sort()
    if len(shared) > MAX_PRODUCTS:
        chosen = np.random.default_rng(seed).choice(len(shared), MAX_PRODUCTS, replace=False)
        shared = shared.take(pa.array(np.sort(chosen)))
    columns = [PRODUCT_ID, "fused_vector", *(column for pair in VECTORS.values() for column in pair)]
    sides = []
    for version in (source_version, target_version):
        rows = versions.read_newest(
            dataset,
            columns,
            (pc.field(ENCODER_VERSION) == version) & pc.field(PRODUCT_ID).isin(shared),
            keys=[PRODUCT_ID],
            event_timestamp=EVENT_TIMESTAMP,
            created_timestamp=CREATED_TIMESTAMP,
        )
        sides.append(rows.sort_by(PRODUCT_ID))
    return _pair_contents(*sides)


def _pair_contents(source: pa.Table, target: pa.Table) -> PairedVectors:
    """Return the vectors of the same products in the same order, NaN where the contents differ."""
    vectors: tuple[dict[str, Vectors], dict[str, Vectors]] = ({}, {})
    is_same_product = np.ones(len(source), bool)
    for modality, (column, hash_column) in VECTORS.items():
        is_equal = pc.fill_null(pc.equal(source[hash_column], target[hash_column]), False)
        same = is_equal.to_numpy()
        for side, rows in zip(vectors, (source, target), strict=True):
            matrix = to_matrix(rows[column])
            side[modality] = np.where(same[:, None], matrix, np.float32(np.nan))
        # Another image or title makes another fused vector; one that only one encoder reads is no change.
        both = pc.and_(source[hash_column].is_valid(), target[hash_column].is_valid()).to_numpy()
        is_same_product &= same | ~both
    for side, rows in zip(vectors, (source, target), strict=True):
        side[FUSED] = np.where(is_same_product[:, None], to_matrix(rows["fused_vector"]), np.float32(np.nan))
    return PairedVectors(*vectors)


def fit_adapter(pairs: PairedVectors, source_version: str, target_version: str, kind: MapKind, *, seed: int) -> Adapter:
    """Fit the maps and the space of fused vectors.

    Raises:
        InvalidInputError: fewer than MIN_PRODUCTS_PER_DIMENSION products for each dimension have titles of both, or
            fewer have fused vectors of the same image and title.
    """
    image, text = (_fit_modality(pairs, modality, kind, seed) for modality in VECTORS)
    required = MIN_PRODUCTS_PER_DIMENSION * max(side["text"].shape[1] for side in (pairs.source, pairs.target))
    goal = pairs.target[FUSED]
    fused = np.full_like(goal, np.nan) if text is None else _fuse(pairs.source, image, text, None)
    usable = ~np.isnan(fused[:, 0] + goal[:, 0])
    if text is None or usable.sum() < required:
        contents = "title" if text is None else "image and title"
        rows = _find_shared(pairs, "text") if text is None else usable
        raise InvalidInputError(
            f"{rows.sum():,} products to fit on have vectors of the same {contents} by {source_version} and "
            f"{target_version}; expected {required:,} at least: encode more with `produce embeddings`"
        )
    centre = fused[usable].mean(axis=0, dtype=np.float64)
    axes = fit_ridge(fused[usable] - centre, goal[usable].astype(np.float64))
    space = Space(centre.astype(np.float32), np.ascontiguousarray(axes, np.float32))
    return Adapter(source_version, target_version, kind, image, text, space)


def measure_losses(adapter: Adapter, pairs: PairedVectors) -> list[AdapterLoss]:
    """Return what the adapter keeps of image, text and fused vectors of some products, which it was not fitted on."""
    adapted = {"text": adapter.text.transform(pairs.source["text"])}
    if adapter.image is not None:
        adapted = {"image": adapter.image.transform(pairs.source["image"]), **adapted}
    adapted[FUSED] = _fuse(pairs.source, adapter.image, adapter.text, adapter.space)
    losses = []
    for name, vectors in adapted.items():
        source, target = pairs.source[name], pairs.target[name]
        usable = ~np.isnan(vectors[:, 0] + source[:, 0] + target[:, 0])
        if usable.sum() < 2:
            continue
        products = np.arange(int(usable.sum()))
        sides = [normalize_rows(rows[usable]) for rows in (target, vectors, source)]
        top_k = min(TOP_K, len(products) - 1)
        nearest = [find_nearest_products(each, each, products, top_k) for each in sides]
        kept, without = (compute_shared(nearest[0], each) for each in nearest[1:])
        mean, half = float(kept.mean()), 1.96 * float(kept.std()) / len(kept) ** 0.5
        cosine = float((vectors[usable] * sides[0]).sum(axis=1).mean())
        recall = (mean, mean - half, mean + half)
        losses.append(AdapterLoss(name, recall, float(without.mean()), cosine, len(products)))
    return losses


def _fit_modality(pairs: PairedVectors, modality: str, kind: MapKind, seed: int) -> VectorMap | None:
    """Return the map of images or texts; None if too few contents have vectors of both."""
    source, target, usable = pairs.source[modality], pairs.target[modality], _find_shared(pairs, modality)
    if usable.sum() < MIN_PRODUCTS_PER_DIMENSION * max(source.shape[1], target.shape[1], 1):
        return None
    return fit_map(kind, source[usable], target[usable], seed=seed)


def _find_shared(pairs: PairedVectors, modality: str) -> NDArray[np.bool_]:
    """Return which products have vectors of the same image or title by both encoders, [n]."""
    return ~np.isnan(pairs.source[modality][:, 0] + pairs.target[modality][:, 0])


def _fuse(source: Mapping[str, Vectors], image: VectorMap | None, text: VectorMap, space: Space | None) -> Vectors:
    """Return the fused vectors that the adapted encoder gives products."""
    texts = text.transform(source["text"])
    images = np.full_like(texts, np.nan) if image is None else image.transform(source["image"])
    return fuse(images, texts, SAME_PRODUCT, space)
