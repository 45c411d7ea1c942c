"""Tags of new products: the taggers of `produce tags`, learned anew from the same labels when a run starts.

They come out the same, and `tagger_version` with them, for they learn from the first version of each labelled product;
nothing that has been fitted lies in a file, which whoever opens it would have to trust.
"""

from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa

from feature_repo.config import Settings
from producers.streaming.product_rows import ViewBuilder
from producers.tags import embedding_rows, run


def tagger(settings: Settings, labels: Path, encoder_version: str, abstain: float) -> ViewBuilder:
    """What tags products.

    Raises:
        VitrineError: as `run.fit_taggers`.
    """
    learned = run.fit_taggers(settings, labels, encoder_version, abstain)
    columns = [*embedding_rows.KEY, *embedding_rows.VECTOR_COLUMNS, *embedding_rows.FLAG_COLUMNS]

    def of(vectors: pa.Table, products: pa.Table) -> pa.Table:
        rows = embedding_rows.fix_vector_width(vectors.select(columns)).append_column("title", products["title"])
        return learned.tag(rows, datetime.fromtimestamp(0, UTC))  # the caller says when the message came

    return of
