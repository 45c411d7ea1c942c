"""Resize and crop a batch of images to a model's input size by torch, in a seventh of Pillow's time.

`Geometry.apply` does the same with Pillow; decoding processes use it for large images. The pixels are equal, except
that about one in a thousand differs by one level of 255. Of a tall, narrow image Pillow may resize the height first and
torch does not: hard edges then differ more, by 0.15 levels in the mean over the images of the demo shop.
"""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from feature_repo.cores import count_cores
from feature_repo.images.geometry import Geometry

TORCH_MODES: Mapping[int, str] = MappingProxyType(
    {Image.Resampling.BILINEAR.value: "bilinear", Image.Resampling.BICUBIC.value: "bicubic"}
)
"""Filters that torch has too, by Pillow's number."""
IMAGES_PER_TASK = 64
"""Images that one thread resizes at a time; torch resizes in one thread."""


def resize_images(rows: NDArray[np.uint8], sizes: NDArray[np.int32], geometry: Geometry) -> NDArray[np.uint8]:
    """Resize and crop a batch of images of any sizes.

    Args:
        rows: uint8 [n, bytes]; each row begins with the pixels of one image, [height, width, 3]. The rest is ignored.
        sizes: int [n, 2], the height and width of each image in pixels; 0 and 0 for an image that is resized and
            cropped already.
        geometry: how to resize. Its `resample` is one of TORCH_MODES, unless no image has to be resized.

    Returns:
        A new array, uint8 [n, geometry.height, geometry.width, 3], in the order of the rows; n may be 0.
    """
    # Imported here: decoding processes import this module, and torch would delay their start by seconds.
    import torch
    from torch.nn import functional

    pixels = np.empty((len(rows), geometry.height, geometry.width, 3), np.uint8)
    distinct, group = np.unique(sizes, axis=0, return_inverse=True)
    tasks = [
        (height, width, members[start : start + IMAGES_PER_TASK])
        for number, (height, width) in enumerate(distinct.tolist())
        for members in [np.flatnonzero(group == number)]
        for start in range(0, len(members), IMAGES_PER_TASK)
    ]

    def resize(task: tuple[int, int, NDArray[np.int64]]) -> None:
        height, width, members = task
        is_slice = members[-1] - members[0] < len(members)  # then no copy is needed
        chosen = rows[members[0] : members[-1] + 1] if is_slice else rows[members]
        if not height:
            pixels[members] = chosen[:, : pixels[0].size].reshape(-1, *pixels.shape[1:])
            return
        images = chosen[:, : height * width * 3].reshape(-1, height, width, 3)
        if (height, width) != geometry.resized_size(height, width):
            values = functional.interpolate(
                torch.from_numpy(np.require(images, requirements="W")).permute(0, 3, 1, 2),
                size=geometry.resized_size(height, width),
                mode=TORCH_MODES[geometry.resample],
                antialias=True,
            )
            images = values.permute(0, 2, 3, 1).numpy()
        pixels[members] = geometry.crop(images)

    list(_resize_threads().map(resize, tasks))
    return pixels


@cache
def _resize_threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(count_cores(), "resize")
