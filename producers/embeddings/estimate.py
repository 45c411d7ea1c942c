"""What a run of `produce embeddings` would do now."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from feature_repo import schema
from feature_repo.config import Settings
from feature_repo.offline import delta
from producers.embeddings import encoder_check, output_store, vector_cache
from producers.embeddings.adapted_vectors import SourceVectors
from producers.embeddings.plan import KnownContents, plan_encoding, read_changes
from producers.embeddings.tower_outputs import TowerOutputs
from producers.encoders import load
from producers.encoders.adapted.encoder import AdaptedEncoder
from producers.encoders.encoder import TowerEncoder


@dataclass(frozen=True)
class EmbeddingEstimate:
    """What a run of `embed_catalogue` would do now."""

    encoder_version: str
    """`name@fingerprint`."""
    rows: int
    """Rows that would be added to `product_embedding`, if each has a usable image or title."""
    existing: int
    """Catalogue rows that need none: they have their embedding row already, or a later correction replaces them."""
    images: int
    """Distinct images that would be passed to the encoder, damaged ones included, and those with kept outputs not. One
    without a hash, as if it could not be read, counts for each of its rows."""
    titles: int
    """Distinct titles that would be passed to the encoder."""

    def __str__(self) -> str:
        return (
            f"{self.encoder_version}: {self.rows:,} rows to add to {schema.EMBEDDING_TABLE}, {self.existing:,} up to "
            f"date\n  {self.images:,} images and {self.titles:,} titles to encode"
        )


@dataclass(frozen=True)
class _Known:
    """The contents that one of several sources knows."""

    sources: Sequence[KnownContents]
    """At least one."""

    def has(self, modality: bytes, hashes: Sequence[bytes | None]) -> NDArray[np.bool_]:
        """Return whether any source knows each content, bool [n]."""
        return np.any([source.has(modality, hashes) for source in self.sources], axis=0)


def estimate_embeddings(
    settings: Settings, encoder: str, *, accept_changed: bool = False, encoder_version: str | None = None
) -> EmbeddingEstimate:
    """Return what `embed_catalogue` would add and encode. Writes nothing, and decodes no image.

    Args:
        settings: the deployment.
        encoder: checkpoint directory or hub name.
        accept_changed: estimate also if the encoder of this name is not that of the last run.
        encoder_version: the version that the encoder must have; None takes any.

    Returns:
        The counts. `rows`, `images` and `titles` are 0 if nothing is new.

    Raises:
        NotFoundError: there is no catalogue, or no such encoder.
        EncoderMismatchError: the encoder has another version than `encoder_version`; or the encoder of this name has
            changed, and `accept_changed` is False.
        VitrineError: the encoder cannot be loaded, or the cache or the run log cannot be read.
    """
    catalogue = delta.open_dataset(settings.table(schema.CATALOGUE_TABLE))
    model = load(encoder)
    encoder_check.require_version(encoder, model.version, encoder_version)
    if not accept_changed:
        encoder_check.require_unchanged(settings, model.version)
    changes = read_changes(settings, model.version)
    if changes is None:
        return EmbeddingEstimate(model.version, rows=0, existing=catalogue.count_rows(), images=0, titles=0)
    folder = settings.local / vector_cache.FOLDER
    with ExitStack() as stack:
        if not folder.exists():  # opening the cache would create it
            folder = Path(stack.enter_context(TemporaryDirectory()))
        cache = stack.enter_context(vector_cache.open_cache(folder, model.version, model.dim))
        known: list[KnownContents] = [cache]
        if isinstance(model, AdaptedEncoder):
            known.append(SourceVectors(cache, model))
        outputs = settings.local / output_store.FOLDER
        if isinstance(model, TowerEncoder) and outputs.exists():
            known.append(TowerOutputs(stack.enter_context(output_store.open_outputs(outputs)), model))
        plan = plan_encoding(settings, changes.new, model.version, _Known(known), has_images=model.has_images)
    rows = len(plan.reused) + len(plan.encoded)
    return EmbeddingEstimate(
        model.version,
        rows=rows,
        existing=changes.rows - rows,
        images=int(plan.is_image_encoded.sum()),
        titles=int(plan.is_title_encoded.sum()),
    )
