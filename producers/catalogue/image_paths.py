"""Paths of images as a products table has them, made absolute."""

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from feature_repo import image_store
from feature_repo.offline import validation


def resolve_paths(paths: pa.ChunkedArray, file: Path) -> tuple[pa.ChunkedArray, validation.Mask, validation.Mask]:
    """Return absolute paths [n], and which of the given ones are URLs [n] or leave the table's folder by `..` [n].

    These become null, and so do blank paths. An absolute path with a part `..` leaves the folder too, and a URL may.
    Whether a file exists is not looked up.

    Args:
        paths: [n] texts; `lmdb://FOLDER#KEY` is an image in an LMDB, which becomes `lmdb:/FOLDER#KEY`.
        file: the table's file. Relative paths start at its folder, or at `file` itself if it is a folder.
    """
    paths = pc.if_else(pa.array(validation.is_blank(paths)), None, paths)
    in_lmdb = pa.array(validation.to_mask(pc.starts_with(paths, image_store.URL_SCHEME)))
    paths = pc.if_else(in_lmdb, pc.utf8_slice_codeunits(paths, len(image_store.URL_SCHEME)), paths)
    is_url = validation.to_mask(pc.match_substring_regex(paths, r"^[A-Za-z][A-Za-z0-9+.-]*://"))
    leaves_folder = validation.to_mask(pc.match_substring_regex(paths, r"(^|/)\.\.(/|$)"))
    folder = str((file if file.is_dir() else file.parent).resolve())
    in_folder = pc.binary_join_element_wise(folder, pc.replace_substring_regex(paths, r"^(\./+)+", ""), "/")
    absolute = pc.if_else(pc.starts_with(paths, "/"), paths, in_folder)
    prefixed = pc.binary_join_element_wise(image_store.PATH_PREFIX, absolute, "")
    absolute = pc.if_else(in_lmdb, prefixed, absolute)
    return pc.if_else(pa.array(is_url | leaves_folder), None, absolute), is_url, leaves_folder
