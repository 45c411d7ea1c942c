"""What a picture that is no product of the store shows, by the taggers that `produce stream` applies too."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image

from feature_repo import schema
from feature_repo.config import Settings
from feature_repo.errors import EncoderMismatchError
from feature_repo.images.geometry import Geometry
from producers.captions.facts import ProductFacts, parse_facts
from producers.encoders.encoder import Encoder
from producers.encoders.pipeline import EncodedChunk, build_embedding_rows
from producers.tags import embedding_rows
from producers.tags.tagger_set import TaggerSet, fit_taggers

ABSTAIN = 0.5
"""As the default of `produce tags`: a category that is less probable decides no style."""
_EPOCH = datetime.fromtimestamp(0, UTC)


class PictureTagger:
    """Tags pictures. One thread may use it at a time.

    Args:
        encoder: encodes pictures and titles, as those that the taggers learned from.
        taggers: the taggers.
        min_probability: a value that is less probable is not sure, in [0, 1].
    """

    def __init__(self, encoder: Encoder, taggers: TaggerSet, min_probability: float) -> None:
        self._encoder = encoder
        self._taggers = taggers
        self._min_probability = min_probability

    @property
    def geometry(self) -> Geometry | None:
        """How pictures must be resized; None for pictures of any size."""
        return self._encoder.geometry

    @property
    def tags(self) -> frozenset[str]:
        """Names of the tags that it predicts."""
        return frozenset(tag for tag, _ in self._taggers.taggers)

    def find_facts(
        self, pictures: Sequence[NDArray[np.uint8] | Image.Image], titles: Sequence[str | None]
    ) -> list[ProductFacts]:
        """Return what the tags say about pictures, in their order.

        Args:
            pictures: n pictures: pixels resized by `geometry`, uint8 [height, width, 3], or, without a geometry, RGB
                images of any size.
            titles: the titles of their products; None where there is none.
        """
        count = len(pictures)
        if self.geometry is None:
            images = self._encoder.encode_images([one for one in pictures if isinstance(one, Image.Image)])
        else:
            images = self._encoder.encode_pixels(np.stack([np.asarray(one) for one in pictures]))
        texts = np.full((count, self._encoder.dim), np.nan, np.float32)
        if with_title := [row for row, title in enumerate(titles) if title is not None]:
            texts[with_title] = self._encoder.encode_texts([title for title in titles if title is not None])
        products = pa.table(
            {
                schema.PRODUCT_ID: pa.array([str(row) for row in range(count)]),
                schema.EVENT_TIMESTAMP: pa.repeat(pa.scalar(_EPOCH, schema.TIMESTAMP), count),
                "title": pa.array(titles, pa.string()),
            }
        )
        vectors = build_embedding_rows(EncodedChunk(products, images, texts), self._encoder, _EPOCH).rows
        columns = [*embedding_rows.KEY, *embedding_rows.VECTOR_COLUMNS, *embedding_rows.FLAG_COLUMNS]
        kept = [int(one) for one in vectors[schema.PRODUCT_ID].to_pylist()]
        rows = embedding_rows.fix_vector_width(vectors.select(columns))
        rows = rows.append_column("title", products["title"].take(pa.array(kept, pa.int64())))
        # Their ids are those of no product, so no tagger has learned from them.
        rows = rows.set_column(0, schema.PRODUCT_ID, pa.array([""] * len(rows)))
        facts = [ProductFacts((), None)] * count
        for row, tags in zip(kept, self._taggers.tag(rows, _EPOCH).to_pylist(), strict=True):
            facts[row] = parse_facts(tags, self._min_probability)
        return facts


def open_tagger(settings: Settings, encoder: Encoder, labels: Path, min_probability: float) -> PictureTagger:
    """Fit the taggers of `produce tags` on labels.

    Args:
        settings: the deployment.
        encoder: the encoder in production.
        labels: Parquet or CSV with product_id, tag and value, as for `produce tags`.
        min_probability: a value that is less probable is not sure, in [0, 1].

    Raises:
        EncoderMismatchError: the encoder is not the one in production.
        VitrineError: as `fit_taggers`.
    """
    version = embedding_rows.choose_encoder_version(settings, None)
    if version != encoder.version:
        raise EncoderMismatchError(
            f"encoder {version} is in production, and the tags' would be {encoder.version}; name its checkpoint with "
            "--tags-encoder"
        )
    return PictureTagger(encoder, fit_taggers(settings, labels, version, ABSTAIN), min_probability)
