"""Fused vectors to `product_codes`: semantic IDs by a codebook that stays the same while products come and go.

A codebook is trained when there is none for the encoder version, or when asked; after that, only versions that it has
not coded yet are added. Its quality is judged on everything it codes, before a row is written.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from feature_repo import schema
from feature_repo.arrow import take
from feature_repo.arrow.take import matrix_to_lists, to_matrix
from feature_repo.config import Settings
from feature_repo.errors import VitrineError
from feature_repo.offline import delta
from feature_repo.schema import CREATED_TIMESTAMP, EVENT_TIMESTAMP, PRODUCT_CODES, PRODUCT_ID, TIMESTAMP
from producers.codes import codebook as codebooks
from producers.codes.codebook import Codebook, CodebookQuality
from producers.tags.embedding_rows import choose_encoder_version

KEY = [PRODUCT_ID, EVENT_TIMESTAMP]
ROWS_PER_COMMIT = 500_000


@dataclass(frozen=True)
class QualityGates:
    """What a codebook must reach."""

    max_collisions: float
    min_entropy: float
    """At every level."""
    max_error: float

    def broken(self, found: CodebookQuality) -> list[str]:
        """What it does not reach."""
        faults = []
        if found.collision_rate > self.max_collisions:
            faults.append(f"collision rate {found.collision_rate:.3f} > {self.max_collisions}")
        faults += [
            f"usage entropy of level {level} {entropy:.3f} < {self.min_entropy}"
            for level, entropy in enumerate(found.usage_entropy)
            if entropy < self.min_entropy
        ]
        if found.reconstruction_error > self.max_error:
            faults.append(f"reconstruction error {found.reconstruction_error:.3f} > {self.max_error}")
        return faults


@dataclass(frozen=True)
class CodingSummary:
    """What one run did."""

    codebook_version: str
    encoder_version: str
    trained: bool
    sizes: tuple[int, ...]
    added: int
    known: int
    quality: CodebookQuality

    def __str__(self) -> str:
        how = "trained" if self.trained else "as it was"
        return (
            f"{self.codebook_version} ({how}, {' x '.join(map(str, self.sizes))} codes): {self.added:,} rows added to "
            f"{schema.CODES_TABLE}, {self.known:,} known already; vectors of {self.encoder_version}\n  {self.quality}"
        )


def code_products(
    settings: Settings,
    *,
    encoder_version: str | None,
    levels: int,
    size: int | None,
    retrain: bool,
    gates: QualityGates,
    seed: int,
    now: datetime,
) -> CodingSummary:
    """Code every product version that the codebook has not coded yet.

    Args:
        settings: the deployment.
        encoder_version: whose vectors; None for the newest.
        levels: codes of an ID, when a codebook is trained.
        size: codes a level, likewise; None for `size_for` the catalogue.
        retrain: train a codebook although there is one.
        gates: nothing is written where the codebook breaks one.
        seed: of the training.
        now: the created timestamp.

    Raises:
        VitrineError: no vectors, too few for the codebook, or a gate is broken: the message says which.
    """
    version = choose_encoder_version(settings, encoder_version)
    known = None if retrain else codebooks.load_newest(settings, version)
    codebook = known or _train(settings, version, levels, size, seed, now)
    sizes = tuple(len(level) for level in codebook.levels)
    keys, codes, found = _encode(settings, codebook)
    if faults := gates.broken(found):
        raise VitrineError(
            f"{codebook.version}: {'; '.join(faults)}; nothing was written. Train with other --levels and --size "
            "(--retrain), or lower the gate if a ranker still gains"
        )
    if known is None:
        codebooks.save_codebook(settings, codebook)
    new = _not_yet(settings, keys, codebook.version)
    for start in range(0, len(new), ROWS_PER_COMMIT):
        rows = new[start : start + ROWS_PER_COMMIT]
        delta.append(
            settings.table(schema.CODES_TABLE), build_code_rows(keys.take(pa.array(rows)), codes[rows], codebook, now)
        )
    return CodingSummary(codebook.version, version, known is None, sizes, len(new), len(keys) - len(new), found)


def _train(settings: Settings, version: str, levels: int, size: int | None, seed: int, now: datetime) -> Codebook:
    """From each product once, so that the often changed weigh no more; a sample of them where they are many."""
    order = delta.read(settings.table(schema.EMBEDDING_TABLE), KEY, where=pc.field("encoder_version") == version)
    product = order[PRODUCT_ID].combine_chunks().dictionary_encode().indices.to_numpy()
    since = order[EVENT_TIMESTAMP].cast(pa.int64()).to_numpy()
    by_product = np.lexsort((since, product))
    last = by_product[np.append(np.diff(product[by_product]) != 0, True)]
    size = size or codebooks.choose_size(len(last))
    most = size * codebooks.VECTORS_PER_CENTROID
    if len(last) > most:
        last = np.random.default_rng(seed).choice(last, most, replace=False)
    where = pc.field("encoder_version") == version
    rows = take.take_rows(
        delta.open_dataset(settings.table(schema.EMBEDDING_TABLE)), np.sort(last), ["fused_vector"], where=where
    )
    vectors = to_matrix(rows["fused_vector"])
    vectors = vectors[~np.isnan(vectors[:, 0])]
    return codebooks.train_codebook(vectors, version, levels=levels, size=size, seed=seed, now=now)


def _encode(settings: Settings, codebook: Codebook) -> tuple[pa.Table, NDArray[np.int32], CodebookQuality]:
    """KEY and codes of every version of the encoder, and how good they are; vectors come and go batch by batch."""
    keys, codes, prints = [], [], []
    error, squares, total, rows = 0.0, 0.0, np.zeros(codebook.levels[0].shape[1]), 0
    for key, vectors in _batches(settings, codebook.encoder_version):
        coded, left = codebook.encode(vectors)
        keys.append(key)
        codes.append(coded)
        prints.append(_fingerprints(vectors))
        error += float((left.astype(np.float64) ** 2).sum())
        squares += float((vectors.astype(np.float64) ** 2).sum())
        total += vectors.sum(axis=0, dtype=np.float64)
        rows += len(vectors)
    if not keys:
        raise VitrineError(
            f"no vector of {codebook.encoder_version} in `{schema.EMBEDDING_TABLE}`; run `produce embeddings`"
        )
    _, first = np.unique(np.concatenate(prints), return_index=True)
    everything = np.concatenate(codes)
    variance = squares - float(total @ total) / rows
    found = codebooks.measure_quality(everything[first], error, variance, [len(level) for level in codebook.levels])
    return pa.concat_tables(keys).combine_chunks(), everything, found


def _fingerprints(vectors: NDArray[np.float32]) -> NDArray[np.uint64]:
    """A number for each vector [n], the same for equal ones: which of 100 million vectors are distinct, in 800 MB."""
    odd = np.random.default_rng(0).integers(0, 2**63, vectors.shape[1], np.uint64) * np.uint64(2) + np.uint64(1)
    bits = np.ascontiguousarray(vectors).view(np.uint32).astype(np.uint64)
    mixed: NDArray[np.uint64] = (bits * odd).sum(axis=1)
    return mixed


def _batches(settings: Settings, version: str) -> Iterator[tuple[pa.Table, NDArray[np.float32]]]:
    where = pc.field("encoder_version") == version
    rows = delta.open_dataset(settings.table(schema.EMBEDDING_TABLE))
    for batch in take.scan(rows, [*KEY, "fused_vector"], where).to_batches():
        table = pa.Table.from_batches([batch]).filter(pc.is_valid(pc.field("fused_vector")))
        if len(table):
            yield table.select(KEY), to_matrix(table["fused_vector"])


def _not_yet(settings: Settings, keys: pa.Table, codebook_version: str) -> NDArray[np.int64]:
    """Rows of `keys` that this codebook has not coded: int64 [n], each key once."""
    numbered = keys.append_column("row", pa.array(np.arange(len(keys))))
    path = settings.table(schema.CODES_TABLE)
    if delta.exists(path):
        coded = delta.read(path, KEY, where=pc.field("codebook_version") == codebook_version)
        numbered = numbered.join(coded, KEY, join_type="left anti")
    return np.sort(numbered.group_by(KEY).aggregate([("row", "max")])["row_max"].to_numpy())


def build_code_rows(keys: pa.Table, codes: NDArray[np.int32], codebook: Codebook, now: datetime) -> pa.Table:
    parts = [pa.array(codes[:, level]).cast(pa.string()) for level in range(codes.shape[1])]
    columns = {
        PRODUCT_ID: keys[PRODUCT_ID],
        "codes": matrix_to_lists(codes),
        "semantic_id": pc.binary_join_element_wise(*parts, "-"),
        "codebook_version": pa.repeat(pa.scalar(codebook.version), len(keys)),
        "encoder_version": pa.repeat(pa.scalar(codebook.encoder_version), len(keys)),
        EVENT_TIMESTAMP: keys[EVENT_TIMESTAMP],
        CREATED_TIMESTAMP: pa.repeat(pa.scalar(now, TIMESTAMP), len(keys)),
    }
    return pa.table(columns).cast(PRODUCT_CODES)
