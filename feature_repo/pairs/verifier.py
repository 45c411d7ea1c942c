"""The pair verifier: the calibrated probability that two products are the same, with named reasons.

A gradient-boosted classifier on the pair features, after a hard veto by stated measures. It is stored in one file,
beside the offline tables in `pair_verifiers/VERSION.npz`, and needs neither torch nor the tables it was trained on:

    word_idf, gram_idf             how rare words are
    mean_NAME, projection_NAME     learned spaces
    model                          the classifier as LightGBM's own text, UTF-8
    calibration, threshold         slope and intercept on the log-odds; lowest probability of the same product
    encoder_version, trained       of the vectors; microseconds since 1970 UTC
    context, group_threshold       the second classifier, as `model`; its lowest probability of one group
"""

import zipfile
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from feature_repo.errors import CorruptDataError
from feature_repo.files.atomic_write import replace_atomically
from feature_repo.pairs.features import PAIR_FEATURES, compute_pair_features, has_veto
from feature_repo.pairs.metric import PairMetric
from feature_repo.pairs.prepared import PreparedProducts
from feature_repo.pairs.title_statistics import TitleStatistics

if TYPE_CHECKING:
    import lightgbm

FOLDER = "pair_verifiers"
"""Folder of the verifier files, in the folder of the offline tables."""

Floats = NDArray[np.float32]
Int64 = NDArray[np.int64]

REASONS = ("image", "title", "brand", "category", "price", "measures")
"""What speaks for or against a pair, in the order of the columns of `explain_pairs`."""


@dataclass(frozen=True)
class PairVerifier:
    """A trained verifier. Vectors of another encoder version than its own must not be given to it."""

    statistics: TitleStatistics
    metric: PairMetric
    model_text: str
    """LightGBM's text."""
    slope: float
    """The calibrated log-odds are slope * the classifier's log-odds + intercept (Platt, 1999)."""
    intercept: float
    threshold: float
    """Lowest probability at which a pair counts as the same; chosen for the largest F1."""
    encoder_version: str
    """"" if it was trained without vectors."""
    trained_us: int
    """Time of the training, microseconds since 1970 UTC."""
    context_text: str = ""
    """LightGBM's text of the classifier that decides a pair of a catalogue from its context, which only
    `produce groups` knows; "" if it was not trained."""
    group_threshold: float = 1.0
    """Lowest probability of that classifier at which a pair may be in one group."""

    @cached_property
    def booster(self) -> "lightgbm.Booster":
        """The classifier."""
        import lightgbm

        return lightgbm.Booster(model_str=self.model_text)

    @cached_property
    def context_booster(self) -> "lightgbm.Booster":
        """The classifier of `context_text`."""
        import lightgbm

        return lightgbm.Booster(model_str=self.context_text)

    @property
    def version(self) -> str:
        """`verifier-` and 12 hex digits: a digest of the classifier and its calibration, not of the time."""
        content = f"{self.encoder_version} {self.slope} {self.intercept} {self.threshold} {self.model_text}"
        content += f"{self.group_threshold} {self.context_text}"
        return f"verifier-{blake2b(content.encode(), digest_size=6).hexdigest()}"

    def score_pairs(self, products: PreparedProducts, left: Int64, right: Int64) -> Floats:
        """Return the probability that each of m pairs is the same product, float32 [m]; 0 after a veto.

        Args:
            products: n products, prepared with this verifier's statistics and metric.
            left: [m], rows of the products.
            right: [m], likewise. The order of the two sides does not matter.
        """
        return self.score_features(compute_pair_features(products, left, right))

    def score_features(self, features: Floats) -> Floats:
        """Return the probability of pairs by their features [m, len(PAIR_FEATURES)], float32 [m]."""
        if not len(features):
            return np.empty(0, np.float32)
        odds = self.booster.predict(features, raw_score=True, num_threads=1)
        probability = 1 / (1 + np.exp(-(self.slope * np.asarray(odds) + self.intercept)))
        return np.where(has_veto(features), 0, probability).astype(np.float32)

    def explain_pairs(self, features: Floats) -> Floats:
        """Return how much each of REASONS adds to the log-odds of m pairs, float32 [m, len(REASONS)].

        Positive values are evidence for the same product. They are SHAP values of the trees (Lundberg and others,
        2020), summed over the features of each reason; after a veto, `measures` is minus infinity.
        """
        shares = np.asarray(self.booster.predict(features, pred_contrib=True, num_threads=1))[:, :-1] * self.slope
        reasons = np.zeros((len(features), len(REASONS)), np.float32)
        for i, name in enumerate(PAIR_FEATURES):
            reasons[:, REASONS.index(_name_reason(name))] += shares[:, i]
        reasons[has_veto(features), REASONS.index("measures")] = -np.inf
        return reasons


def save_verifier(folder: Path, verifier: PairVerifier) -> Path:
    """Write a verifier as VERSION.npz into a folder, atomically, and return its file."""
    file = folder / f"{verifier.version}.npz"
    arrays = {f"mean_{name}": values for name, values in verifier.metric.mean.items()}
    arrays |= {f"projection_{name}": values for name, values in verifier.metric.projection.items()}
    with replace_atomically(file) as unfinished, unfinished.open("wb") as stream:
        np.savez_compressed(
            stream,
            word_idf=verifier.statistics.word_idf,
            gram_idf=verifier.statistics.gram_idf,
            model=np.frombuffer(verifier.model_text.encode(), np.uint8),
            context=np.frombuffer(verifier.context_text.encode(), np.uint8),
            group_threshold=verifier.group_threshold,
            calibration=np.array([verifier.slope, verifier.intercept]),
            threshold=verifier.threshold,
            encoder_version=verifier.encoder_version,
            trained=verifier.trained_us,
            **arrays,  # type: ignore[arg-type]
        )
    return file


def load_verifier(file: Path) -> PairVerifier:
    """Read a verifier that `save_verifier` wrote.

    Raises:
        CorruptDataError: the file does not exist, is not a verifier, or its content does not match its name.
    """
    try:
        with np.load(file, allow_pickle=False) as arrays:
            spaces = [name.removeprefix("mean_") for name in arrays.files if name.startswith("mean_")]
            slope, intercept = arrays["calibration"].tolist()
            verifier = PairVerifier(
                TitleStatistics(arrays["word_idf"], arrays["gram_idf"]),
                PairMetric(
                    {name: arrays[f"mean_{name}"] for name in spaces},
                    {name: arrays[f"projection_{name}"] for name in spaces},
                ),
                arrays["model"].tobytes().decode(),
                slope,
                intercept,
                float(arrays["threshold"]),
                str(arrays["encoder_version"]),
                int(arrays["trained"]),
                arrays["context"].tobytes().decode(),
                float(arrays["group_threshold"]),
            )
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise CorruptDataError(f"{file}: not a readable pair verifier; restore it, or train one again") from error
    if verifier.version != file.stem:
        raise CorruptDataError(f"{file}: holds {verifier.version}; restore the file, or train a verifier again")
    return verifier


def load_newest_verifier(folder: Path, encoder_version: str) -> PairVerifier | None:
    """Return the verifier of an encoder version that was trained last; None if there is none.

    Raises:
        CorruptDataError: a verifier file, of any encoder version, is damaged.
    """
    verifiers = [load_verifier(file) for file in sorted(folder.glob("*.npz"))]
    mine = [verifier for verifier in verifiers if verifier.encoder_version == encoder_version]
    return max(mine, key=lambda verifier: verifier.trained_us, default=None)


def _name_reason(feature: str) -> str:
    """Return which of REASONS a feature belongs to."""
    if feature.endswith("_agrees"):
        return "measures"
    if feature.endswith(("_cosine", "_learned")) or feature == "same_image":
        return "title" if feature.startswith("text_") else "image"
    if feature in ("brand_equal", "brand_in_title"):
        return "brand"
    if feature == "category_shared":
        return "category"
    return "price" if feature == "price_ratio" else "title"
