"""muge: pictures of products with Chinese queries (retrieval), or with captions, in three splits.

Pictures are bytes in products.parquet. A product has a title only if it has captions: the first of them. The set has
no times; every product is dated to the year of publication.
"""

from collections.abc import Iterator
from datetime import datetime
from itertools import islice
from pathlib import Path

import pyarrow as pa

from feature_repo import schema
from feature_repo.errors import NotFoundError
from feature_repo.evaluation import muge
from feature_repo.evaluation.muge import CAPTION_PICTURES, CAPTIONS, PICTURES, QUERIES
from feature_repo.files.json_lines import Malformed
from feature_repo.offline.quarantine import RejectedRow
from producers.datasets.imports import folder
from producers.datasets.imports.folder import ImportedTables

PUBLISHED = folder.start_of_year(2021)
CHUNK = 1_000
"""Pictures that are converted at a time."""
PRODUCTS = pa.schema([pa.field(one.name, pa.binary()) if one.name == "image" else one for one in schema.PRODUCTS])
UNKNOWN_IMAGE = "the query has an image id that the pictures lack"


def read(source: Path, now: datetime, split: str | None = None) -> ImportedTables:
    """Read the splits that the folder has. A malformed line is refused with its number.

    Args:
        source: folder with the files of feature_repo/evaluation/muge.py.
        now: not used, because the set has no times.
        split: read only this split; None reads train, valid and test.

    Returns:
        The tables `products`, `queries` (one row for each query and true image; queries without answers have none) and
        `captions`, where the set has them.

    Raises:
        NotFoundError: there are no pictures of any split.
    """
    del now  # the set has no times that could be in the future
    malformed: Malformed = []
    unknown: list[RejectedRow] = []
    products, queries, captions = [], [], []
    for name in muge.SPLITS if split is None else (split,):
        texts: dict[str, tuple[str, ...]] = {}
        if file := muge.find_file(source, name, CAPTIONS):
            texts = muge.read_captions(file, malformed)
            captions += [{"product_id": i, "caption": text, "split": name} for i in texts for text in texts[i]]
        ids: set[str] = set()
        for kind in (PICTURES, CAPTION_PICTURES):
            if file := muge.find_file(source, name, kind):
                for chunk in _read_products(file, texts, malformed):
                    products.append(chunk)
                    ids.update(chunk["product_id"].to_pylist())
        if file := muge.find_file(source, name, QUERIES):
            for query in muge.read_queries(file, malformed):
                for image_id in query.image_ids:
                    row = {"query_id": query.id, "query": query.text, "product_id": str(image_id), "split": name}
                    if row["product_id"] in ids:
                        queries.append(row | {"relevant": 1})
                    else:
                        unknown.append(RejectedRow(str(query.id), "image_ids", UNKNOWN_IMAGE, str(image_id)))
    if not products:
        names = ", ".join(name.format(split=split or "SPLIT") for name in (*PICTURES, *CAPTION_PICTURES))
        raise NotFoundError(f"{source}: no such file as {names}, with a picture; expected the files of MUGE")
    tables = {"products": pa.concat_tables(products)}
    if queries:
        tables["queries"] = pa.Table.from_pylist(queries, folder.QUERIES)
    if captions:
        tables["captions"] = pa.Table.from_pylist(captions, folder.CAPTIONS)
    refused = [RejectedRow(f"{one.file.name} line {one.number}", "line", one.reason, one.line) for one in malformed]
    return ImportedTables(tables, [*refused, *unknown])


def _read_products(file: Path, texts: dict[str, tuple[str, ...]], malformed: Malformed) -> Iterator[pa.Table]:
    """Yield the pictures of a file as products, CHUNK at a time."""
    stream = muge.read_pictures(file, malformed)
    while pictures := list(islice(stream, CHUNK)):
        yield pa.Table.from_pylist(
            [
                {"product_id": i, "image": content, "title": texts.get(i, (None,))[0], "updated_at": PUBLISHED}
                for i, content in pictures
            ],
            PRODUCTS,
        )
