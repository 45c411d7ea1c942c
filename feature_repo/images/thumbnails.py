"""Small copies of pictures for pages."""

import io

from PIL import Image

from feature_repo.images.decoding import Source, open_image


def shrink_picture(picture: Source, side: int) -> bytes:
    """Return a JPEG of a picture whose longer side has at most `side` pixels.

    Raises:
        UnusableImageError: it cannot be read.
    """
    image = open_image(picture, side=side)
    image.thumbnail((side, side), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=82)
    return buffer.getvalue()
