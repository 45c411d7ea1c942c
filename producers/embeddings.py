"""The catalogue to `product_embedding`: every version that this encoder has not seen, in commits of bounded size."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from feature_repo import schema
from feature_repo.settings import Settings
from feature_repo.tables import delta, quarantine
from producers.catalogue import TABLE as CATALOGUE
from producers.encoders import load
from producers.encoders.embed import embed
from producers.encoders.pixels import decoding_processes

TABLE = "product_embedding"
STEP = "embeddings"
ROWS_A_COMMIT = 4096
KEY = [schema.PRODUCT_ID, schema.EVENT_TIMESTAMP]
COLUMNS = [*KEY, "title", "image", "image_bytes"]


@dataclass(frozen=True)
class Done:
    """What came of one run."""

    encoder_version: str
    encoded: int
    known: int
    """Catalogue versions that this encoder had encoded before."""
    unusable: dict[str, int]
    """Pictures and titles without a vector, by reason; the product went on with the other modality."""

    def __str__(self) -> str:
        lines = [f"{self.encoder_version}: {self.encoded:,} products encoded, {self.known:,} known already"]
        return "\n".join(lines + [f"  quarantined {rows:,}: {reason}" for reason, rows in self.unusable.items()])


def embed_catalogue(settings: Settings, encoder: str, *, now: datetime, progress: Callable[[int, int], None]) -> Done:
    """Encode every catalogue version that has no row of this encoder yet.

    Args:
        settings: the deployment.
        encoder: checkpoint directory or hub name.
        now: the created timestamp.
        progress: told how many of how many products are done.

    Raises:
        VitrineError: there is no catalogue, or the encoder cannot be opened.
    """
    catalogue = delta.read(settings.table(CATALOGUE), COLUMNS)
    model = load(encoder)
    todo = _without_known(settings, catalogue, model.version)
    encoded, unusable = 0, Counter[str]()
    if todo.num_rows:
        with decoding_processes() as pool:
            for start in range(0, todo.num_rows, ROWS_A_COMMIT):
                made = embed(todo.slice(start, ROWS_A_COMMIT), model, pool, now)
                if made.rows.num_rows:
                    delta.append(settings.table(TABLE), made.rows)
                refused = [quarantine.Refused(u.product_id, u.column, u.reason, u.value) for u in made.unusable]
                quarantine.add(settings, STEP, refused, now)
                unusable.update(refusal.reason for refusal in refused)
                encoded += made.rows.num_rows
                progress(min(start + ROWS_A_COMMIT, todo.num_rows), todo.num_rows)
    return Done(model.version, encoded, len(catalogue) - len(todo), dict(unusable.most_common()))


def _without_known(settings: Settings, catalogue: pa.Table, encoder_version: str) -> pa.Table:
    """The versions that have no row of this encoder, in the catalogue's order."""
    path = settings.table(TABLE)
    if not delta.exists(path):
        return catalogue
    known = delta.read(path, [*KEY, "encoder_version"])
    known = known.filter(pc.field("encoder_version") == encoder_version).select(KEY)
    place = pa.array(np.arange(len(catalogue)))
    left = catalogue.select(KEY).append_column("place", place).join(known, KEY, join_type="left anti")
    return catalogue.take(left.column("place").combine_chunks().sort())
