"""The probability that two products are the same, and what speaks for and against it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from consumers.pairs.products import KnownProduct
from feature_repo.errors import EncoderMismatchError
from feature_repo.exported.encoder import ExportedEncoder
from feature_repo.fusion import SAME_PRODUCT, SIMILAR, fuse
from feature_repo.pairs.features import compute_pair_features
from feature_repo.pairs.measures import VETO_MEASURES, extract_measures, find_conflicts
from feature_repo.pairs.picture import WIDTH
from feature_repo.pairs.prepared import PreparedProducts
from feature_repo.pairs.verifier import PairVerifier

Floats = NDArray[np.float32]
Pair = tuple[KnownProduct, KnownProduct]


@dataclass(frozen=True)
class ScoredPair:
    """The answer for one pair."""

    probability: float
    """Calibrated; 0 after a veto."""
    reasons: Floats
    """[REASONS], what each adds to the log-odds; minus infinity for `measures` after a veto."""
    vetoes: tuple[str, ...]
    """Measures that both products state differently, so that they cannot be the same."""


class PairScorer:
    """Scores pairs by an export. Not safe to share between threads."""

    def __init__(self, encoder: ExportedEncoder, verifier: PairVerifier) -> None:
        """Join an encoder and a verifier.

        Raises:
            EncoderMismatchError: the verifier was trained on vectors of another encoder version.
        """
        if verifier.encoder_version not in ("", encoder.encoder_version):
            raise EncoderMismatchError(
                f"{verifier.version} was trained on vectors of {verifier.encoder_version}, the exported encoder is "
                f"{encoder.encoder_version}; export both together: produce export --with-verifier"
            )
        self.encoder = encoder
        self.verifier = verifier

    def score(self, pairs: Sequence[Pair]) -> list[ScoredPair]:
        """Return the answers for pairs, in their order. Vectors that are not known yet are computed for all at once.

        Raises:
            UnavailableError: the towers run elsewhere, and do not answer.
        """
        products = list({id(product): product for pair in pairs for product in pair}.values())
        row_of = {id(product): row for row, product in enumerate(products)}
        left, right = (np.array([row_of[id(pair[side])] for pair in pairs], np.int64) for side in (0, 1))
        prepared = PreparedProducts.prepare(self._build_table(products), self.verifier.statistics)
        prepared = prepared.with_metric(self.verifier.metric)
        measures = [
            extract_measures(f"{product.title or ''} {product.facts}") if product.facts else stated
            for product, stated in zip(products, prepared.measures, strict=True)
        ]
        features = compute_pair_features(replace(prepared, measures=measures), left, right)
        probabilities = self.verifier.score_features(features).tolist()
        reasons = self.verifier.explain_pairs(features)
        conflicts = [find_conflicts(measures[a], measures[b]) for a, b in zip(left, right, strict=True)]
        return [
            ScoredPair(probability, reason, tuple(name for name in names if name in VETO_MEASURES))
            for probability, reason, names in zip(probabilities, reasons, conflicts, strict=True)
        ]

    def _build_table(self, products: Sequence[KnownProduct]) -> pa.Table:
        """Return the columns that `PreparedProducts.prepare` reads."""
        image = _fill(
            [product.image_vector for product in products],
            [product.pixels for product in products],
            self.encoder.encode_pixels,
            self.encoder.dim,
        )
        text = _fill(
            [product.text_vector for product in products],
            [product.title for product in products],
            self.encoder.encode_texts,
            self.encoder.dim,
        )
        columns: dict[str, Any] = {
            name: pa.array([getattr(product, name) for product in products], kind)
            for name, kind in (
                ("title", pa.string()),
                ("brand", pa.string()),
                ("category", pa.string()),
                ("price", pa.float64()),
                ("image_hash", pa.binary()),
            )
        }
        columns |= {
            "picture": _to_lists(_stack([product.picture for product in products], WIDTH)),
            "image_vector": _to_lists(image),
            "text_vector": _to_lists(text),
            "fused_vector": _to_lists(fuse(image, text, SAME_PRODUCT, self.encoder.space)),
            "similar_vector": _to_lists(fuse(image, text, SIMILAR)),
        }
        return pa.table(columns)


def _fill(
    known: Sequence[Floats | None], sources: Sequence[Any | None], encode: Callable[[list[Any]], Any], width: int
) -> Floats:
    """Return vectors [n, width]: the known ones, else those of the sources; NaN where there is neither."""
    rows = _stack(known, width)
    needed = [row for row, vector in enumerate(known) if vector is None and sources[row] is not None]
    if needed:
        rows[needed] = encode([sources[row] for row in needed])
    return rows


def _stack(vectors: Sequence[Floats | None], width: int) -> Floats:
    """Return vectors as a matrix [n, width], NaN for None."""
    rows = np.full((len(vectors), width), np.nan, np.float32)
    for row, vector in enumerate(vectors):
        if vector is not None:
            rows[row] = vector
    return rows


def _to_lists(rows: Floats) -> pa.Array:
    """Return rows as an Arrow column of lists; null for NaN."""
    return pa.array([None if np.isnan(row[0]) else row for row in rows], pa.list_(pa.float32()))
