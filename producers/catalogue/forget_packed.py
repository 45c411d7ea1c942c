"""Delete the pictures that `produce images` keeps of forgotten products: from LMDBs and from the bucket.

The rows of the catalogue name them. A picture that another product has too stays, and so do files of the shop and
images under keys that do not state their content, which `produce images` did not write.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset

from feature_repo import schema
from feature_repo.arrow import take
from feature_repo.config import Settings
from feature_repo.images import image_store
from feature_repo.images.picture_folders import BucketFolder, LmdbFolder, PictureFolder, read_stated_hash
from feature_repo.location import BucketObject, Location
from feature_repo.offline import delta
from feature_repo.schema import PRODUCT_ID
from producers.downloads import download_log


def forget_packed(settings: Settings, products: Sequence[str], *, dry_run: bool = False) -> int:
    """Delete the pictures that only these products have, in all of their versions; return how many there were.

    What is known of the URLs from which they were downloaded is deleted too, if it lies beside the LMDB.

    Args:
        settings: the deployment; without a catalogue there are none.
        products: product ids in every spelling that tables may have.
        dry_run: only count.

    Raises:
        UnavailableError: they cannot be deleted.
        CorruptDataError: an LMDB or a log of downloads is damaged.
    """
    deleted = 0
    for folder, keys in _group_by_folder(settings, _find_own(settings, products)).items():
        stored = folder.list_stored(keys)
        deleted += len(stored)
        if dry_run:
            continue
        folder.delete(stored)
        if isinstance(folder, LmdbFolder) and (folder.folder.parent / download_log.FILE).exists():
            with download_log.open_log(folder.folder.parent) as log:
                log.forget(keys)
    return deleted


def _group_by_folder(settings: Settings, images: Sequence[str]) -> dict[PictureFolder, list[str]]:
    """Return the keys of packed pictures by the folder that keeps them. Others are left out."""
    keys: dict[PictureFolder, list[str]] = {}
    for image in images:
        source = settings.find_picture(image)
        if isinstance(source, BucketObject):
            stated = read_stated_hash(source)
            folder: PictureFolder = BucketFolder(source.prefix)
        else:
            stated = image_store.read_key_hash(image) if image_store.is_stored(image) else None
            folder = LmdbFolder(Path(image.removeprefix(image_store.PATH_PREFIX).rpartition("#")[0]))
        if stated is not None:
            keys.setdefault(folder, []).append(stated.hex())
    return keys


def _find_own(settings: Settings, products: Sequence[str]) -> list[str]:
    """Return the images, first and further ones, that rows of these products name and no row of another one does."""
    path = settings.table(schema.CATALOGUE_TABLE)
    if not products or not delta.exists(path):
        return []
    is_own = pc.field(PRODUCT_ID).isin(list(products))
    own = pa.array({image for images in _list_images(path, is_own) for image in images.to_pylist()}, pa.string())
    for images in _list_images(path, ~is_own):
        own = own.filter(pc.invert(pc.is_in(own, value_set=images)))
    return own.to_pylist()


def _list_images(path: Location, where: pyarrow.dataset.Expression) -> Iterator[pa.Array]:
    """Yield the columns `image` and `images` of rows, the lists flat, in batches."""
    rows = delta.open_dataset(path)
    columns = [name for name in ("image", "images") if name in rows.schema.names]  # before 0.3 there was no `images`
    for batch in take.scan(rows, columns, where).to_batches():
        yield batch["image"].drop_null()
        if "images" in columns:
            yield pc.list_flatten(batch["images"]).drop_null()
