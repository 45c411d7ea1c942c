"""A selection as a page of pictures, or as CSV.

The page is one file without scripts and outside assets: pictures are small and inside it. All texts are escaped.
"""

import base64
import io
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from jinja2 import Environment, StrictUndefined
from PIL import Image

from consumers.search.selection import SearchResult
from feature_repo import schema
from feature_repo.config import Settings
from feature_repo.errors import UsageError
from feature_repo.files.atomic_write import replace_atomically
from feature_repo.files.csv_export import write_csv
from feature_repo.images.decoding import Source, UnusableImageError, open_image
from feature_repo.offline import delta
from feature_repo.schema import PRODUCT_ID

SIDE = 160
"""Height and width of a picture on the page, in pixels."""
PAGE_ROWS = 60
"""Products of one section of the page."""
SUFFIXES = (".csv", ".html")
_INTERNAL = ("image_hash", "catalogue_us", "embedding_us", "tags_us")


def check_suffix(file: Path) -> None:
    """Raise UsageError if a selection cannot be written to a file of this name."""
    if file.suffix.lower() not in SUFFIXES:
        raise UsageError(f"--output {file}: expected a name that ends in {' or '.join(SUFFIXES)}")


def write_selection(settings: Settings, result: SearchResult, file: Path) -> None:
    """Write a selection as CSV or HTML, by the suffix of the file; an earlier file is replaced at the end."""
    check_suffix(file)
    if file.suffix.lower() == ".csv":
        products = result.products.drop_columns(list(_INTERNAL))
        first = ["rank", PRODUCT_ID, "title", "score", "reasons"]
        write_csv(products.select([*first, *(name for name in products.column_names if name not in first)]), file)
        return
    page = render_sheet(result, read_pictures(settings, result.products))
    with replace_atomically(file) as unfinished:
        unfinished.write_text(page, encoding="utf-8")


def render_sheet(result: SearchResult, pictures: Sequence[Source | None]) -> str:
    """Return the page of a selection.

    Args:
        result: n products.
        pictures: [n], path or bytes of each picture; None without one. One that cannot be read counts as none.
    """
    rows = result.products.to_pylist()
    for row, picture in zip(rows, pictures, strict=True):
        row["picture"] = _shrink(picture)
    template = Environment(autoescape=True, undefined=StrictUndefined).from_string(
        files("consumers.search").joinpath("contact_sheet.html").read_text(encoding="utf-8")
    )
    pages = [rows[start : start + PAGE_ROWS] for start in range(0, len(rows), PAGE_ROWS)]
    return template.render(result=result, pages=pages, side=SIDE)


def read_pictures(settings: Settings, products: pa.Table) -> list[Source | None]:
    """Return the source of each product's picture, in their order; bytes are read from the catalogue, by their hash."""
    has_bytes = pc.and_(pc.is_null(products["image"]), pc.is_valid(products["image_hash"]))
    without = products.filter(has_bytes)[PRODUCT_ID].combine_chunks()
    stored: dict[bytes, bytes] = {}
    if len(without):
        rows = delta.read(
            settings.table(schema.CATALOGUE_TABLE),
            ["image_hash", "image_bytes"],
            where=pc.field(PRODUCT_ID).isin(without) & pc.field("image_bytes").is_valid(),
        )
        stored = dict(zip(rows["image_hash"].to_pylist(), rows["image_bytes"].to_pylist(), strict=True))
    return [
        stored.get(image_hash) if path is None else settings.find_picture(path)
        for path, image_hash in zip(products["image"].to_pylist(), products["image_hash"].to_pylist(), strict=True)
    ]


def _shrink(picture: Source | None) -> str | None:
    """Return a small JPEG of a picture in base64; None if there is none, or it cannot be read."""
    if picture is None:
        return None
    try:
        image = open_image(picture, side=SIDE)
    except UnusableImageError:
        return None
    image.thumbnail((SIDE, SIDE), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=80)
    return base64.b64encode(buffer.getvalue()).decode()
