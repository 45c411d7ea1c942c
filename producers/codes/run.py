"""`produce codes`: fused vectors to `product_codes`, with a codebook that stays the same as the catalogue changes.

A codebook is trained if the encoder version has none, or on request. Otherwise only the product versions are added
whose newest row is not of this codebook, or is of another vector. The quality of the codebook is checked on everything
that it codes before a row is written.
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
from feature_repo.errors import InvalidInputError, NotFoundError
from feature_repo.offline import delta
from feature_repo.schema import CREATED_TIMESTAMP, EVENT_TIMESTAMP, PRODUCT_CODES, PRODUCT_ID, TIMESTAMP
from producers import input_digest
from producers.codes import codebook as codebooks
from producers.codes.codebook import Codebook, CodebookQuality
from producers.embeddings.existing_rows import find_latest
from producers.input_digest import Digests
from producers.stored_rows import find_outdated
from producers.tags.embedding_rows import choose_encoder_version

KEY = [PRODUCT_ID, EVENT_TIMESTAMP]
"""The columns that identify a version of a product."""
ROWS_PER_COMMIT = 500_000
"""Rows that are written at once."""


@dataclass(frozen=True)
class QualityGates:
    """The quality that a codebook must have before its codes are written."""

    max_collisions: float
    """Largest collision rate that passes, in [0, 1]."""
    min_entropy: float
    """Smallest usage entropy of a level that passes, in [0, 1]; every level must pass."""
    max_error: float | None = None
    """Largest reconstruction error that passes, in [0, 1]; None for any. It grows with what the vectors hold, so that a
    richer encoder has a larger one, though its codes may help a ranker more."""

    def find_failures(self, quality: CodebookQuality) -> list[str]:
        """Return a line for each gate that `quality` fails; no lines if it passes all.

        A value equal to its gate passes. The collision rate comes first, then the levels, numbered from 0, then the
        reconstruction error.
        """
        failures = []
        if quality.collision_rate > self.max_collisions:
            failures.append(f"collision rate {quality.collision_rate:.3f} > {self.max_collisions}")
        failures += [
            f"usage entropy of level {level} {entropy:.3f} < {self.min_entropy}"
            for level, entropy in enumerate(quality.usage_entropy)
            if entropy < self.min_entropy
        ]
        if self.max_error is not None and quality.reconstruction_error > self.max_error:
            failures.append(f"reconstruction error {quality.reconstruction_error:.3f} > {self.max_error}")
        return failures


@dataclass(frozen=True)
class CodingSummary:
    """What one run did."""

    codebook_version: str
    """Version of the codebook that was used."""
    encoder_version: str
    """Version of the vectors that were coded."""
    trained: bool
    """Whether this run trained the codebook."""
    sizes: tuple[int, ...]
    """Number of codes of each level, from the first."""
    added: int
    """Rows added to `product_codes`; 0 if those of all product versions were up to date."""
    known: int
    """Product versions whose row was up to date."""
    quality: CodebookQuality
    """Quality of the codebook on all product versions with a vector, not only on the added ones."""

    def __str__(self) -> str:
        origin = "trained now" if self.trained else "existing"
        return (
            f"{self.codebook_version} ({origin}, {' x '.join(map(str, self.sizes))} codes): {self.added:,} rows added "
            f"to {schema.CODES_TABLE}, {self.known:,} up to date; vectors of {self.encoder_version}\n"
            f"  {self.quality}"
        )


def code_products(
    settings: Settings,
    *,
    encoder_version: str | None,
    levels: int,
    size: int | None,
    retrain: bool,
    recompute: bool = False,
    gates: QualityGates,
    seed: int,
    now: datetime,
) -> CodingSummary:
    """Code every product version with a fused vector that has no row of this codebook and vector as its newest one.

    The codebook is the newest one of the encoder version. If there is none, one is trained on the latest version of
    each product. A new codebook codes all product versions, and the rows of earlier codebooks stay. Of a version that
    was encoded twice, the vector created last is coded.

    Args:
        settings: the deployment.
        encoder_version: version of the vectors; None for the one in production.
        levels: number of codes of an ID. Used only if a codebook is trained.
        size: number of codes that can occur at each level. Used only if a codebook is trained; None chooses one from
            the number of products.
        retrain: whether to train a new codebook if there is one already.
        recompute: write the rows of all product versions again, those that are up to date too.
        gates: if the codebook fails one of them, nothing is written, no codebook either.
        seed: seed of the training.
        now: the created timestamp, with a time zone.

    Raises:
        NotFoundError: there are no vectors, or none of `encoder_version`.
        InvalidInputError: the encoder version is ambiguous, there are too few vectors, or a gate fails.
        CorruptDataError: a codebook file cannot be read.
    """
    version = choose_encoder_version(settings, encoder_version)
    existing = None if retrain else codebooks.load_newest(settings, version)
    codebook = existing or _train(settings, version, levels, size, seed, now)
    sizes = tuple(len(level) for level in codebook.levels)
    keys, codes, digests, quality = _encode_all(settings, codebook)
    if failures := gates.find_failures(quality):
        raise InvalidInputError(
            f"{codebook.version}: {'; '.join(failures)}; nothing was written. Train with other --levels and --size "
            "(--retrain), or relax the limit if a ranker still gains"
        )
    if existing is None:
        codebooks.save_codebook(settings, codebook)
    path = settings.table(schema.CODES_TABLE)
    new = find_outdated(
        path,
        keys,
        digests,
        version_column="codebook_version",
        version=codebook.version,
        encoder_version=version,
        recompute=recompute,
    )
    for start in range(0, len(new), ROWS_PER_COMMIT):
        part = new[start : start + ROWS_PER_COMMIT]
        delta.append(path, build_code_rows(keys.take(pa.array(part)), codes[part], digests[part], codebook, now))
    return CodingSummary(codebook.version, version, existing is None, sizes, len(new), len(keys) - len(new), quality)


def build_code_rows(
    keys: pa.Table, codes: NDArray[np.int32], digests: Digests, codebook: Codebook, now: datetime
) -> pa.Table:
    """Return rows of schema.PRODUCT_CODES, in the order of `keys`.

    The semantic ID is the codes of all levels, joined by hyphens: `12-7-255`.

    Args:
        keys: table with the columns of KEY [n].
        codes: codes of the same rows, int32 [n, levels].
        digests: `input_digest.hash_vectors` of the vectors of the same rows.
        codebook: the codebook that made the codes; each row gets its version and its encoder version.
        now: the created timestamp, with a time zone.
    """
    parts = [pa.array(codes[:, level]).cast(pa.string()) for level in range(codes.shape[1])]
    columns = {
        PRODUCT_ID: keys[PRODUCT_ID],
        "codes": matrix_to_lists(codes),
        "semantic_id": pc.binary_join_element_wise(*parts, "-"),
        "codebook_version": pa.repeat(pa.scalar(codebook.version), len(keys)),
        "encoder_version": pa.repeat(pa.scalar(codebook.encoder_version), len(keys)),
        EVENT_TIMESTAMP: keys[EVENT_TIMESTAMP],
        CREATED_TIMESTAMP: pa.repeat(pa.scalar(now, TIMESTAMP), len(keys)),
        schema.INPUT_DIGEST: input_digest.to_arrow(digests),
    }
    return pa.table(columns).cast(PRODUCT_CODES)


def _train(settings: Settings, version: str, levels: int, size: int | None, seed: int, now: datetime) -> Codebook:
    """Train a codebook on the latest version of each product, or on a sample of them if there are many.

    The vectors are sampled and passed on in the order of the product ids, so that the codebook does not depend on the
    order of the table's rows and files.
    """
    where = pc.field("encoder_version") == version
    dataset = delta.open_dataset(settings.table(schema.EMBEDDING_TABLE), [*KEY, CREATED_TIMESTAMP, "encoder_version"])
    keys = dataset.to_table(columns=[*KEY, CREATED_TIMESTAMP], filter=where)
    products = keys[PRODUCT_ID].combine_chunks().dictionary_encode()
    rank = np.empty(len(products.dictionary), np.int64)
    rank[pc.array_sort_indices(products.dictionary).to_numpy()] = np.arange(len(rank))
    product = rank[products.indices.to_numpy()]
    timestamp, created = (keys[name].cast(pa.int64()).to_numpy() for name in (EVENT_TIMESTAMP, CREATED_TIMESTAMP))
    by_product = np.lexsort((created, timestamp, product))
    latest = by_product[np.append(np.diff(product[by_product]) != 0, True)]
    size = size or codebooks.choose_size(len(latest))
    max_vectors = size * codebooks.VECTORS_PER_CENTROID
    if len(latest) > max_vectors:
        latest = latest[np.sort(np.random.default_rng(seed).choice(len(latest), max_vectors, replace=False))]
    ascending = np.sort(latest)
    rows = take.take_rows(dataset, ascending, ["fused_vector"], where=where)
    vectors = to_matrix(rows["fused_vector"])[np.searchsorted(ascending, latest)]
    vectors = vectors[~np.isnan(vectors[:, 0])]
    return codebooks.train_codebook(vectors, version, levels=levels, size=size, seed=seed, now=now)


def _encode_all(settings: Settings, codebook: Codebook) -> tuple[pa.Table, NDArray[np.int32], Digests, CodebookQuality]:
    """Return KEY, codes and digest of every product version with a vector, and the quality of the codes.

    The vectors are read in batches and not kept.
    """
    keys, codes, digests = [], [], []
    error, squares, total, rows = 0.0, 0.0, np.zeros(codebook.levels[0].shape[1]), 0
    for key, vectors in _read_batches(settings, codebook.encoder_version):
        batch_codes, residual = codebook.encode(vectors)
        keys.append(key)
        codes.append(batch_codes)
        digests.append(input_digest.hash_vectors(vectors))
        error += float((residual.astype(np.float64) ** 2).sum())
        squares += float((vectors.astype(np.float64) ** 2).sum())
        total += vectors.sum(axis=0, dtype=np.float64)
        rows += len(vectors)
    if not keys:
        raise NotFoundError(
            f"no vectors of {codebook.encoder_version} in `{schema.EMBEDDING_TABLE}`; run `produce embeddings`"
        )
    all_codes, all_digests = np.concatenate(codes), np.concatenate(digests)
    _, first = np.unique(all_digests, return_index=True)
    variance = squares - float(total @ total) / rows
    sizes = [len(level) for level in codebook.levels]
    quality = codebooks.measure_quality(all_codes[first], error, variance, sizes)
    return pa.concat_tables(keys).combine_chunks(), all_codes, all_digests, quality


def _read_batches(settings: Settings, version: str) -> Iterator[tuple[pa.Table, NDArray[np.float32]]]:
    """Yield KEY and fused vectors of the rows that have one; of several rows of one KEY only the one created last."""
    where = pc.field("encoder_version") == version
    dataset = delta.open_dataset(settings.table(schema.EMBEDDING_TABLE), [*KEY, CREATED_TIMESTAMP, "encoder_version"])
    latest = np.sort(find_latest(dataset.to_table(columns=[*KEY, CREATED_TIMESTAMP], filter=where)))
    for batch in take.take_batches(dataset, latest, [*KEY, "fused_vector"], where=where):
        table = pa.Table.from_batches([batch]).filter(pc.is_valid(pc.field("fused_vector")))
        if len(table):
            yield table.select(KEY), to_matrix(table["fused_vector"])
