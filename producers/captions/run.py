"""`produce captions`: catalogue images and tags to `product_caption`."""

import json
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from hashlib import blake2b

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset

from feature_repo import schema
from feature_repo.arrow import take
from feature_repo.config import Settings
from feature_repo.images.decoding import Source
from feature_repo.offline import delta, quarantine
from feature_repo.schema import CREATED_TIMESTAMP, EVENT_TIMESTAMP, PRODUCT_CAPTION, PRODUCT_ID, TIMESTAMP
from feature_repo.vocabulary import Words
from producers import input_digest
from producers.captions.candidates import Caption, CaptionedProduct, write_captions
from producers.captions.facts import ProductFacts, open_tags, read_facts
from producers.captions.prompts import CaptionOptions
from producers.embeddings.existing_rows import find_latest
from producers.encoders.captioner import Captioner, open_captioner
from producers.encoders.image_loader import DecodedImages, decode_images, open_decoding_pool
from producers.stored_rows import find_outdated

STEP = "captions"
"""Name of this step in the quarantine."""
REVISION = 1
"""Increased with every change of the code that changes a caption."""
ROWS_PER_COMMIT = 4096
"""Product versions that are captioned and written at once."""
KEY = [PRODUCT_ID, EVENT_TIMESTAMP]
"""The columns that identify a version of a product."""


@dataclass(frozen=True)
class CaptioningSummary:
    """What one run did."""

    captioner_version: str
    """Digest of the encoder, the words and the options."""
    encoder_version: str
    """Version of the encoder that captioned the images, with its language head."""
    written: int
    """Captions written: rows with a caption added to `product_caption`."""
    known: int
    """Product versions that had a row of this captioner before."""
    without_image: int
    """Product versions without an image; they are not captioned and not quarantined."""
    stated: dict[str, int]
    """Attribute to the number of written captions that state it, the most frequent first."""
    missing: dict[str, int]
    """Rows that were written without a caption: reason to their number, the most frequent first."""
    unusable: dict[str, int]
    """Images that got no row: reason to their number, the most frequent first."""

    def __str__(self) -> str:
        lines = [
            f"{self.captioner_version} by {self.encoder_version}: {self.written:,} captions written, "
            f"{self.known:,} up to date, {self.without_image:,} products without an image"
        ]
        if self.stated:
            lines.append("  " + ", ".join(f"{rows:,} state {tag}" for tag, rows in self.stated.items()))
        lines += [f"  no caption for {rows:,}: {reason}" for reason, rows in self.missing.items()]
        return "\n".join(lines + [f"  quarantined {rows:,}: {reason}" for reason, rows in self.unusable.items()])


def caption_catalogue(
    settings: Settings,
    encoder: str,
    vocabulary: Mapping[str, Words],
    options: CaptionOptions,
    *,
    recompute: bool = False,
    now: datetime,
    progress: Callable[[int, int], None],
) -> CaptioningSummary:
    """Write a caption for every product version with an image that has no current one of this captioner.

    A caption is current if it is the one created last, and was made from the same image, brand and sure values of tags.
    A version for which nothing can be stated gets a row with the reason instead of a caption.

    If a product version has both a path and the bytes of an image, the bytes are captioned.

    Unusable images are quarantined; a later run tries them again. The rows are written in parts of ROWS_PER_COMMIT, so
    that an interrupted run keeps the finished parts.

    Args:
        settings: the deployment.
        encoder: checkpoint with a language head: directory or hub name.
        vocabulary: attribute -> value -> words. An attribute without a tag is never stated.
        options: how captions are written.
        recompute: write all captions again, current ones too.
        now: the created timestamp, with a time zone.
        progress: called after each part with the number of product versions done so far, and the total of those that
            had no current caption; not called if there are none.

    Raises:
        NotFoundError: there is no catalogue, there are no tags, or the checkpoint has no language head.
        VitrineError: the checkpoint cannot be opened.
    """
    dataset = delta.open_dataset(settings.table(schema.CATALOGUE_TABLE))
    versions = _read_versions(dataset)
    with_image = versions.filter(pc.field("has_image"))
    facts = read_facts(open_tags(settings), with_image, options.min_probability)
    captioner = open_captioner(encoder)
    version = compute_captioner_version(captioner.version, vocabulary, options)
    seeds = input_digest.combine(
        input_digest.hash_texts(with_image["image_hash"]),
        input_digest.hash_texts(with_image["unhashed_path"]),
        input_digest.hash_texts(pa.array([_describe_facts(one) for one in facts], pa.string())),
    )
    digests = input_digest.combine(seeds, input_digest.hash_texts(with_image["brand"]))
    outdated = find_outdated(
        settings.table(schema.CAPTION_TABLE),
        with_image,
        digests,
        version_column="captioner_version",
        version=version,
        encoder_version=None,
        recompute=recompute,
    )
    todo = with_image["row"].to_numpy()[outdated]
    brands = {brand.lower() for brand in with_image["brand"].unique().to_pylist() if brand}
    done = 0
    stated, missing, unusable = Counter[str](), Counter[str](), Counter[str]()
    if len(todo):
        with open_decoding_pool() as pool:
            columns = [*KEY, "image", "image_bytes", "brand"]
            for chunk in take.take_chunks(dataset, todo, columns, ROWS_PER_COMMIT, batch_rows=take.IMAGE_ROWS):
                rows = outdated[done : done + len(chunk)]
                decoded = decode_images(_list_sources(settings, chunk), captioner.geometry, pool)
                products = [
                    CaptionedProduct(facts[row], brand, int(seeds[row]))
                    for row, brand, is_usable in zip(rows, chunk["brand"].to_pylist(), decoded.usable, strict=True)
                    if is_usable
                ]
                captions = write_captions(captioner, decoded.pixels, products, vocabulary, brands, options)
                part = chunk.append_column(schema.INPUT_DIGEST, input_digest.to_arrow(digests[rows]))
                if captions:
                    usable = part.filter(pa.array(decoded.usable))
                    new = _build_rows(usable, captions, options, version, captioner, now)
                    delta.append(settings.table(schema.CAPTION_TABLE), new)
                rejected = _find_rejected(part, decoded)
                quarantine.add(settings, STEP, rejected, now)
                unusable.update(row.reason for row in rejected)
                missing.update(one.missing_reason for one in captions if one.missing_reason is not None)
                stated.update(fact.tag for one in captions for fact in one.stated)
                stated["any attribute"] += sum(one.text is not None for one in captions)
                done += len(chunk)
                progress(done, len(todo))
    written = stated.pop("any attribute", 0)
    return CaptioningSummary(
        captioner_version=version,
        encoder_version=captioner.version,
        written=written,
        known=len(with_image) - len(todo),
        without_image=len(versions) - len(with_image),
        stated=dict(stated.most_common()),
        missing=dict(missing.most_common()),
        unusable=dict(unusable.most_common()),
    )


def compute_captioner_version(encoder_version: str, vocabulary: Mapping[str, Words], options: CaptionOptions) -> str:
    """Return `captioner-` and 12 hex digits: a digest of everything but the product that a caption depends on."""
    settings = asdict(options) | {"category_styles": sorted(options.category_styles.items())}
    words = [(tag, list(values.items())) for tag, values in vocabulary.items()]
    text = json.dumps([REVISION, encoder_version, words, sorted(settings.items())])
    return f"captioner-{blake2b(text.encode(), digest_size=6).hexdigest()}"


def _describe_facts(facts: ProductFacts | None) -> str | None:
    """Return the sure facts and the category as a text; None without tags."""
    return None if facts is None else "\n".join([facts.category or "", *map(str, facts.sure)])


def _list_sources(settings: Settings, rows: pa.Table) -> list[Source]:
    """Return the bytes, or the file or object, of each image."""
    columns = (rows.column(name).to_pylist() for name in ("image", "image_bytes"))
    return [
        content if content is not None else settings.find_picture(path) for path, content in zip(*columns, strict=True)
    ]


def _build_rows(
    rows: pa.Table,
    captions: list[Caption],
    options: CaptionOptions,
    captioner_version: str,
    captioner: Captioner,
    now: datetime,
) -> pa.Table:
    """Return schema.PRODUCT_CAPTION for the rows, in their order."""
    columns = {
        PRODUCT_ID: rows[PRODUCT_ID],
        "caption": [caption.text for caption in captions],
        "stated": [sorted(map(str, caption.stated)) for caption in captions],
        "missing_reason": [caption.missing_reason for caption in captions],
        "style": [caption.style for caption in captions],
        "language": pa.repeat(options.language, len(rows)),
        "captioner_version": pa.repeat(captioner_version, len(rows)),
        "encoder_version": pa.repeat(captioner.version, len(rows)),
        EVENT_TIMESTAMP: rows[EVENT_TIMESTAMP],
        CREATED_TIMESTAMP: pa.repeat(pa.scalar(now, TIMESTAMP), len(rows)),
        schema.INPUT_DIGEST: rows[schema.INPUT_DIGEST],
    }
    return pa.table(columns, schema=PRODUCT_CAPTION)


def _find_rejected(rows: pa.Table, decoded: DecodedImages) -> list[quarantine.RejectedRow]:
    """Return the rows whose image is unusable."""
    unusable = rows.filter(pa.array(~decoded.usable))[PRODUCT_ID].to_pylist()
    return [
        quarantine.RejectedRow(product, "image", error.reason, error.detail or None)
        for product, error in zip(unusable, decoded.refused, strict=True)
    ]


def _read_versions(catalogue: pyarrow.dataset.Dataset) -> pa.Table:
    """Return the product versions of the catalogue without their images: KEY, brand and what identifies the image.

    Of several rows of one KEY the one created last is the version. `row` is its position in the dataset, ascending;
    `has_image` whether it has an image; `unhashed_path` the path of an image that has no hash, because it could not be
    read.
    """
    rows = catalogue.to_table(columns=[*KEY, CREATED_TIMESTAMP, "image_hash", "image", "brand"])
    has_image = pc.or_(rows["image"].is_valid(), rows["image_hash"].is_valid())  # bytes always have a hash
    rows = rows.append_column("has_image", has_image)
    path = pc.if_else(rows["image_hash"].is_null(), rows["image"], None)
    rows = rows.append_column("unhashed_path", path).append_column("row", pa.array(np.arange(len(rows))))
    return rows.take(pa.array(np.sort(find_latest(rows)))).drop_columns(["image", CREATED_TIMESTAMP])
