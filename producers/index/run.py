"""`produce index`: builds the index of an encoder version, or brings it up to date with its tables."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from feature_repo import schema
from feature_repo.config import Settings
from feature_repo.errors import InvalidInputError, NotFoundError
from feature_repo.index import update
from feature_repo.index.manifest import Manifest
from feature_repo.index.product_index import ProductIndex, describe, open_index
from feature_repo.index.rows import TEXTURES, WORDS, find_folder
from feature_repo.index.update import IndexedProducts
from feature_repo.offline.versions import read_gone_products
from feature_repo.schema import PRODUCT_ID
from producers.index import changes, texture, word_model
from producers.index.changes import IndexChanges
from producers.index.texture import TextureDictionary
from producers.index.word_model import WordModel
from producers.tags.embedding_rows import choose_encoder_version

STEP = "index"
IMAGE_VECTOR, TEXT_VECTOR = "image_vector", "text_vector"
VECTORS = ("image_vector", "text_vector", "fused_vector", "similar_vector")
DEFAULT_VECTORS = (IMAGE_VECTOR, TEXT_VECTOR)


@dataclass(frozen=True)
class IndexSummary:
    """What one run did."""

    folder: Path
    encoder_version: str
    how: str
    """"built", "extended" or "unchanged"."""
    changed: int
    """Products that are new or changed."""
    products: int
    """Products that a search can return."""
    gone: int
    """Products that are hidden because they have left the shop."""
    words: int
    """Words that pictures are scored for."""
    recall: dict[str, Any]
    """Measured recall by vector."""

    def __str__(self) -> str:
        """Return one line of counts, and one line of measured recall for each vector."""
        lines = [
            f"index of {self.encoder_version} {self.how}: {self.changed:,} products new or changed, {self.gone:,} gone"
            f", {self.products:,} in the index; pictures are scored for {self.words:,} words"
        ]
        for vector, measured in self.recall.items():
            shares = ", ".join(
                f"{one['recall']:.3f} in {one['share']:.1%} of the products ({one['candidates']} candidates)"
                for one in measured["shares"]
            )
            lines.append(f"  {vector}: recall@10 {shares}")
        return "\n".join(lines)


def index_products(
    settings: Settings,
    *,
    encoder_version: str | None,
    vectors: Sequence[str] = DEFAULT_VECTORS,
    rebuild: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> IndexSummary:
    """Build the index of an encoder version, or bring it up to date.

    A run without new rows in any table changes nothing. After a table was removed and written anew, the index is built
    anew. Up to `update.FLAT_ROWS` products, and when many have changed,
    the index is built anew; otherwise the changed products are added beside the main segment. Building also learns the
    word model anew.

    Args:
        settings: the deployment.
        encoder_version: the encoder of the vectors; None takes the one in production.
        vectors: columns of schema.PRODUCT_EMBEDDING. An index that has others is built anew.
        rebuild: build the index from the tables, whatever is there.
        progress: called with the number of pictures whose texture was described, and their total.

    Raises:
        InvalidInputError: there is no such vector, or no product has one.
        NotFoundError: there is no catalogue, or there are no vectors of this encoder version.
        CorruptDataError: the index is damaged; `rebuild` replaces it.
    """
    if unknown := sorted(set(vectors) - set(VECTORS)):
        raise InvalidInputError(f"there is no vector {', '.join(unknown)}; expected one of {', '.join(VECTORS)}")
    version = choose_encoder_version(settings, encoder_version)
    folder = find_folder(settings, version)
    index = None if rebuild else _open_or_none(folder, version)
    if index is not None and set(index.vectors) != set(vectors):
        index = None
    sources = changes.read_source_versions(settings)
    if index is not None and changes.is_of_other_tables(index, sources):
        index = None
    if index is not None and index.manifest.sources == sources:
        return _summarize(index, "unchanged", 0)
    changed = changes.read_changes(settings, version, vectors, index)
    gone = read_gone_products(settings.table(schema.ACTIVE_TABLE)).to_pylist()
    count = 0 if changed is None else len(changed.rows)
    if index is None and changed is None:
        raise InvalidInputError(f"no product has a vector of {version}; run: produce embeddings")
    if index is not None and (changed is None or not update.needs_merge(index, count)):
        added = None
        if changed is not None:
            added = _describe(changed, index, _read_model(index), progress)
        update.append_products(index, added, gone=gone, sources=sources)
        return _summarize(open_index(folder, version), "extended", count)
    _build(folder, version, index, changed, gone, sources, progress)
    return _summarize(open_index(folder, version), "built", count)


def _build(
    folder: Path,
    version: str,
    index: ProductIndex | None,
    changed: IndexChanges | None,
    gone: Sequence[str],
    sources: dict[str, int],
    progress: Callable[[int, int], None],
) -> Manifest:
    """Write the index of all products, with a word model if there are enough pictures."""
    model = None if index is None else _read_model(index)
    dictionary = model.dictionary if model is not None else _learn_dictionary(changed)
    added = None
    if changed is not None:
        textures = _describe_textures(changed, index, dictionary, progress)
        added = IndexedProducts(changed.rows, changed.vectors, {} if textures is None else {TEXTURES: textures})
    products = update.gather_products(index, added)
    arrays = {name: values for name, values in products.arrays.items() if name != WORDS}
    fitted = None
    if dictionary is not None and IMAGE_VECTOR in products.vectors and TEXTURES in arrays:
        ids, titles = (products.rows[name].to_pylist() for name in (PRODUCT_ID, "title"))
        fitted = word_model.fit_word_model(ids, titles, products.vectors[IMAGE_VECTOR], arrays[TEXTURES], dictionary)
    if fitted is not None:
        arrays[WORDS] = fitted[1]
    return update.build_index(
        folder,
        version,
        IndexedProducts(products.rows, products.vectors, arrays),
        gone=gone,
        sources=sources,
        word_model=None if fitted is None else fitted[0].to_bytes(),
    )


def _describe(
    changed: IndexChanges, index: ProductIndex, model: WordModel | None, progress: Callable[[int, int], None]
) -> IndexedProducts:
    """Return changed products with the arrays of the index."""
    arrays: dict[str, NDArray[Any]] = {}
    if model is not None:
        textures = _describe_textures(changed, index, model.dictionary, progress)
        assert textures is not None
        arrays = {TEXTURES: textures, WORDS: model.score(changed.vectors[IMAGE_VECTOR], textures)}
    return IndexedProducts(changed.rows, changed.vectors, arrays)


def _describe_textures(
    changed: IndexChanges,
    index: ProductIndex | None,
    dictionary: TextureDictionary | None,
    progress: Callable[[int, int], None],
) -> NDArray[np.float16] | None:
    """Return the textures of changed products [n, width]; that of an unchanged picture is taken from the index."""
    if dictionary is None:
        return None
    textures = np.full((len(changed.rows), dictionary.width), np.nan, np.float16)
    is_known = np.zeros(len(textures), bool)
    if index is not None:
        positions, rows = changes.find_same_pictures(changed.rows, index)
        stored = index.take_array(TEXTURES, rows)
        if stored is not None:
            textures[positions], is_known[positions] = stored, True
    needed = np.flatnonzero(~is_known)
    sources = [changed.pictures[row] for row in needed.tolist()]
    for done, (row, values) in enumerate(zip(needed, texture.describe_pictures(sources, dictionary), strict=True), 1):
        textures[row] = values
        progress(done, len(needed))
    return textures


def _learn_dictionary(changed: IndexChanges | None) -> TextureDictionary | None:
    """Return a dictionary from some pictures; None if there are too few that can be read."""
    if changed is None:
        return None
    given = [picture for picture in changed.pictures if picture is not None]
    if len(given) < word_model.MIN_PRODUCTS:
        return None
    step = max(1, len(given) // texture.TRAINING_PICTURES)
    pictures = [texture.open_grey(picture) for picture in given[::step]]
    usable = [picture for picture in pictures if picture is not None]
    return texture.learn_dictionary(usable) if usable else None


def _read_model(index: ProductIndex) -> WordModel | None:
    name = index.manifest.word_model
    return None if name is None else WordModel.from_bytes((index.folder / name).read_bytes())


def _open_or_none(folder: Path, version: str) -> ProductIndex | None:
    """Return the open index; None if there is none."""
    try:
        return open_index(folder, version)
    except NotFoundError:
        return None


def _summarize(index: ProductIndex, how: str, changed: int) -> IndexSummary:
    described = describe(index)
    words = next((len(one.arrays[WORDS]) for one in index.segments if WORDS in one.arrays), 0)
    return IndexSummary(
        index.folder,
        index.encoder_version,
        how,
        changed,
        described["products"],
        len(update.list_gone(index)),
        words,
        described["recall"],
    )
