"""Paths of images as a products table has them, made absolute."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from feature_repo.bucket_url import SCHEMES
from feature_repo.images import image_store
from feature_repo.location import BucketPath, find_object_url
from feature_repo.offline import validation


class ResolvedPaths(NamedTuple):
    """The outcome for n paths. Each mask marks paths that became null; at most one of them marks a path."""

    absolute: pa.ChunkedArray
    """[n], text, a path or the URL of an object in a bucket; null where a path is null, blank or marked by a mask."""
    is_url: validation.Mask
    """[n], URLs, also those without a scheme (`//cdn.example/a.jpg`)."""
    leaves_folder: validation.Mask
    """[n], paths with a part `..`, also absolute ones."""
    has_backslash: validation.Mask
    """[n], paths with a backslash, such as those of Windows."""


def resolve_paths(paths: pa.ChunkedArray, file: Path, pictures: BucketPath | None = None) -> ResolvedPaths:
    """Return paths made absolute, and which of them cannot be used. Whether a file exists is not looked up.

    Args:
        paths: [n] texts; `lmdb://FOLDER#KEY` is an image in an LMDB, which becomes `lmdb:/FOLDER#KEY`.
        file: the table's file. Relative paths start at its folder, or at `file` itself if it is a folder.
        pictures: a prefix in a bucket. Relative paths start there, and URLs below it are kept. None: neither.
    """
    paths = pc.if_else(pa.array(validation.is_blank(paths)), None, paths)
    is_in_lmdb = validation.to_mask(pc.starts_with(paths, image_store.URL_SCHEME))
    in_lmdb = pa.array(is_in_lmdb)
    paths = pc.if_else(in_lmdb, pc.utf8_slice_codeunits(paths, len(image_store.URL_SCHEME)), paths)
    is_object = np.zeros(len(paths), bool)
    if pictures is not None:
        paths = _respell_urls(paths, pictures)
        is_object = validation.to_mask(pc.starts_with(paths, f"{pictures.url}/"))
    is_url = validation.to_mask(pc.match_substring_regex(paths, r"^([A-Za-z][A-Za-z0-9+.-]*:)?//")) & ~is_object
    has_backslash = validation.to_mask(pc.match_substring(paths, "\\")) & ~is_url & ~is_in_lmdb
    leaves_folder = validation.to_mask(pc.match_substring_regex(paths, r"(^|/)\.\.(/|$)")) & ~is_url & ~has_backslash
    folder = str((file if file.is_dir() else file.parent).resolve())
    relative = pc.replace_substring_regex(paths, r"^(\./+)+", "")
    in_folder = pc.binary_join_element_wise(folder, relative, "/")
    if pictures is not None:
        in_bucket = pc.binary_join_element_wise(pictures.url, relative, "/")
        in_folder = pc.if_else(pa.array(is_object), paths, pc.if_else(in_lmdb, in_folder, in_bucket))
    absolute = pc.if_else(pc.starts_with(paths, "/"), paths, in_folder)
    prefixed = pc.binary_join_element_wise(image_store.PATH_PREFIX, absolute, "")
    absolute = pc.if_else(in_lmdb, prefixed, absolute)
    absolute = pc.if_else(pa.array(is_url | leaves_folder | has_backslash), None, absolute)
    return ResolvedPaths(absolute, is_url, leaves_folder, has_backslash)


def _respell_urls(paths: pa.ChunkedArray, pictures: BucketPath) -> pa.ChunkedArray:
    """Return paths in which the URLs of objects below a prefix have the spelling of `BucketObject`."""
    is_bucket = pc.match_substring_regex(paths, f"^({'|'.join(SCHEMES)})://", ignore_case=True)
    rows = np.flatnonzero(
        validation.to_mask(is_bucket) & ~validation.to_mask(pc.starts_with(paths, f"{pictures.url}/"))
    )
    if not len(rows):
        return paths
    texts = paths.to_pylist()
    for row in rows.tolist():
        texts[row] = find_object_url(texts[row], pictures) or texts[row]
    return pa.chunked_array([pa.array(texts, pa.string())])
