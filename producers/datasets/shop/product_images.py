"""Draws one product's image, and all images in several processes.

The design determines category, colour, pattern, emblem, cut and age; the seller determines background, crop and angle.
Every random number comes from the product's own generator, so an image does not depend on the process that draws it.
"""

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance

from feature_repo.schema import CHILD_AGES, CHILD_GENDERS
from producers.datasets.shop import decoration, parameters, vocabulary
from producers.datasets.shop.assortment import Assortment, Bools
from producers.datasets.shop.decoration import CANVAS, Colour
from producers.datasets.shop.random_streams import make_generator
from producers.datasets.shop.shapes import Points, Silhouette, ellipse
from producers.datasets.shop.silhouettes import make_child, make_outline

SIZE = 96
"""Width and height of an image in pixels."""
PRODUCTS_PER_TASK = 250
BOW: Colour = (232, 62, 128)
PENNANT: Colour = (40, 104, 200)


def draw_images(
    assortment: Assortment, folder: Path, *, seed: int, processes: int, further: Bools | None = None
) -> Iterator[int]:
    """Write `folder`/PRODUCT_ID.jpg for each product that has an image, and replace files that are there.

    A second image of a product is beside the first, see `name_further_image`.

    A file of a product without an image is left as it is. Products are drawn in tasks of PRODUCTS_PER_TASK. With one
    process, or one task, each is drawn in this process when its number is asked for.

    Args:
        assortment: the products.
        folder: an existing folder.
        seed: the shop's seed.
        processes: how many processes draw, at least 1; the files do not depend on it.
        further: [n], whether a product with an image has a second one; None: no product.

    Yields:
        For each finished task, in the order of the products, its number of products, those without an image included.
    """
    n = len(assortment.products.design)
    further = np.zeros(n, bool) if further is None else further
    row_ranges = [range(a, min(a + PRODUCTS_PER_TASK, n)) for a in range(0, n, PRODUCTS_PER_TASK)]
    tasks = [folder] * len(row_ranges), [seed] * len(row_ranges), row_ranges, [further[rows] for rows in row_ranges]
    if processes == 1 or len(row_ranges) == 1:
        for task in zip(*tasks, strict=True):
            yield _draw_rows(assortment, *task)
        return
    # Spawned, not forked, because Arrow and NumPy may have started threads in this process.
    with ProcessPoolExecutor(
        processes, mp_context=get_context("spawn"), initializer=_set_assortment, initargs=(assortment,)
    ) as pool:
        yield from pool.map(_draw_rows_of_shared_assortment, *tasks)


def name_further_image(product_id: str) -> str:
    """Return the name of the second image of a product, without its suffix."""
    return f"{product_id}_2"


_assortment: Assortment | None = None  # set in each worker process


def _set_assortment(assortment: Assortment) -> None:
    """Keep the products in this worker process, so that they are sent to it once."""
    global _assortment
    _assortment = assortment


def _draw_rows_of_shared_assortment(folder: Path, seed: int, rows: range, further: Bools) -> int:
    """Draw the images of a range of the products that this worker process keeps."""
    assert _assortment is not None
    return _draw_rows(_assortment, folder, seed, rows, further)


def _draw_rows(assortment: Assortment, folder: Path, seed: int, rows: range, further: Bools) -> int:
    """Write the images of a range of products and return their number, those without an image included."""
    ids = assortment.products.ids
    for product, has_further in zip(rows, further.tolist(), strict=True):
        if assortment.products.image_quality[product] != "missing":
            draw_image(assortment, product, seed=seed).save(folder / f"{ids[product]}.jpg", quality=88)
            if has_further:
                second = draw_image(assortment, product, seed=seed, number=1)
                second.save(folder / f"{name_further_image(ids[product])}.jpg", quality=88)
    return len(rows)


def draw_image(assortment: Assortment, product: int, *, seed: int, number: int = 0) -> Image.Image:
    """Return the image of a product: RGB, SIZE pixels square.

    If `image_quality` is "blurred", "grey" or "small", the image is degraded. If it is "missing", the image is drawn
    as if it were "good".

    Args:
        assortment: the products.
        product: number of the product, from 0: an index into the fields of `assortment.products`.
        seed: the shop's seed; the same arguments give the same image.
        number: which image of the product, from 0: they differ in background, crop and angle.
    """
    designs, goods = assortment.designs, assortment.products
    rng = make_generator(seed, "picture", product, *[number] * (number > 0))
    design = goods.design[product]
    age, looks = int(designs.age[design]), float(designs.apparent_age[design])
    growth = float(np.clip((looks + 0.3) / (len(CHILD_AGES) - 0.4), 0, 1))
    detail = _pick_detail(age, len(CHILD_AGES), make_generator(seed, "detail", int(design)))
    shape = make_outline(vocabulary.CATEGORIES[designs.category[design]].name, growth, detail)
    quality = str(goods.image_quality[product])

    image = decoration.draw_background(int(goods.seller[product]), rng)
    shows_model = bool(rng.random() < parameters.MODEL_SHOWN)
    if shows_model:
        _paint_child(image, age, rng)
    zoom = float(rng.uniform(0.90, 1.12)) * (0.55 + 0.35 * growth) * (0.45 if quality == "small" else 1.0)
    middle = CANVAS * (0.5 + rng.uniform(-0.04, 0.04, size=2) + np.array([-0.07 if shows_model else 0, 0]))
    placement = _Placement(middle, zoom * CANVAS * 0.5, float(np.deg2rad(rng.normal(0, 5))), bool(rng.random() < 0.5))
    _paint_product(image, shape, placement, designs.levels[design], int(designs.second_colour[design]), rng)
    _paint_gender(image, placement, int(designs.gender[design]), rng)
    return _degrade(image, quality, rng)


class _Placement:
    """Position, scale, angle and mirroring of a product in an image; converts silhouette coordinates to pixels."""

    def __init__(self, middle: np.ndarray, scale: float, angle: float, flip: bool) -> None:
        turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
        self.matrix = np.diag([-1.0 if flip else 1.0, 1.0]) @ turn * scale
        self.middle, self.scale = middle, scale

    def __call__(self, points: Points) -> list[tuple[float, float]]:
        """Return points [k, 2] in the coordinates of a silhouette as k pairs of pixels."""
        return [(x, y) for x, y in (points @ self.matrix + self.middle).tolist()]


def _pick_detail(true: int, n: int, rng: np.random.Generator) -> int:
    """Return the true stage, or with probability 1 - AGE_DETAIL_FIDELITY one next to it.

    For the first and the last of the n stages, half of these draws return the true stage too.
    """
    if rng.random() < parameters.AGE_DETAIL_FIDELITY:
        return true
    return int(np.clip(true + (1 if rng.random() < 0.5 else -1), 0, n - 1))


def _paint_product(
    image: Image.Image,
    shape: Silhouette,
    placement: _Placement,
    levels: np.ndarray,
    second: int,
    rng: np.random.Generator,
) -> None:
    """Paint shadow, rim, material, further parts and emblem of a product onto the image, in this order."""
    colour_, pattern_, emblem_, cut_, _ = (int(level) for level in levels)
    colour = decoration.mix_colours(decoration.PALETTE[colour_], (255, 255, 255), float(rng.uniform(0, 0.12)))
    colour = decoration.mix_colours(colour, (0, 0, 0), float(rng.uniform(0, 0.08)))
    accent = decoration.PALETTE[second]
    cut = vocabulary.CUTS[cut_].name
    paints = {"accent": accent, "dark": decoration.INK, "light": decoration.CREAM}
    draw = ImageDraw.Draw(image)
    polygons = [(placement(part.points), part.paint) for part in shape.parts]
    bottom = max(y for points, _ in polygons for _, y in points)
    x, reach = float(placement.middle[0]), placement.scale * 0.7
    draw.ellipse((x - reach, bottom - 7, x + reach, bottom + 9), fill=(222, 218, 214))
    # A thin rim separates pale products from pale backgrounds; the outlined cut has a bold rim.
    rim, width = (
        (decoration.INK, 11) if cut == "outlined" else (decoration.mix_colours(colour, decoration.INK, 0.35), 4)
    )
    for points, _ in polygons:
        draw.line([*points, points[0], points[1]], fill=rim, width=width, joint="curve")
    cloth = _draw_cloth(colour, accent, vocabulary.PATTERNS[pattern_].name, cut, placement, rng)
    for points, paint in polygons:
        if paint == "body":
            mask = Image.new("L", (CANVAS, CANVAS), 0)
            ImageDraw.Draw(mask).polygon(points, fill=255)
            if cut == "piped":
                image.paste(accent, (0, 0), mask)
                inner = placement.middle + 0  # piping: the edge in the second colour
                centre = np.mean(points, axis=0) * 0.5 + inner * 0.5
                mask = Image.new("L", (CANVAS, CANVAS), 0)
                ImageDraw.Draw(mask).polygon([tuple(p) for p in (np.array(points) - centre) * 0.84 + centre], fill=255)
            image.paste(cloth, (0, 0), mask)
        else:
            draw.polygon(points, fill=paints[paint])
    _paint_emblem(draw, vocabulary.EMBLEMS[emblem_].name, shape.emblem, placement)


def _draw_cloth(
    colour: Colour, accent: Colour, name: str, cut: str, placement: _Placement, rng: np.random.Generator
) -> Image.Image:
    """Return the material as an image, which is cut out along the outline."""
    cloth = Image.new("RGB", (CANVAS, CANVAS), colour)
    x, y = (int(at) for at in rng.integers(0, decoration.PITCH[name], size=2))
    print_ = decoration.draw_pattern(name).crop((x, y, x + CANVAS, y + CANVAS))
    cloth.paste(decoration.contrast_colour(colour), (0, 0), print_)
    draw = ImageDraw.Draw(cloth)
    if cut == "two-tone":
        draw.rectangle((0, float(placement.middle[1]) + 0.18 * placement.scale, CANVAS, CANVAS), fill=accent)
    elif cut == "patched":
        for x_, y_ in ((-0.42, -0.3), (0.4, 0.5)):
            (cx, cy), size = placement(np.array([(x_, y_)]))[0], 0.27 * placement.scale
            draw.rectangle((cx - size, cy - size, cx + size, cy + size), fill=accent, outline=decoration.CREAM, width=3)
    return cloth


def _paint_emblem(
    draw: ImageDraw.ImageDraw, name: str, place: tuple[float, float, float], placement: _Placement
) -> None:
    """Paint an emblem on a pale disc; nothing for "none". `place` is x, y and half the width."""
    if name == "none":
        return
    x, y, size = place
    size = max(size, 0.24)
    disc = ellipse(x, y, size * 1.2, size * 1.2)
    draw.polygon(placement(disc), fill=decoration.CREAM)
    for points, colour in decoration.list_emblem_shapes(name):
        draw.polygon(placement(points * size * 0.9 + [x, y]), fill=colour)


def _paint_child(image: Image.Image, stage: int, rng: np.random.Generator) -> None:
    """Paint a child of the stage in the lower right corner."""
    height = CANVAS * float(rng.uniform(0.27, 0.31))
    at = np.array([CANVAS * 0.86, CANVAS * 0.97 - height])
    clothes = decoration.PALETTE[int(rng.integers(len(decoration.PALETTE)))]
    paints = {
        "accent": decoration.mix_colours(clothes, decoration.CREAM, 0.3),
        "dark": decoration.INK,
        "skin": decoration.SKIN,
    }
    draw = ImageDraw.Draw(image)
    for part in make_child(stage).parts:
        points = [(x, y) for x, y in (part.points * height * [0.8, 1.0] + at).tolist()]
        draw.polygon(points, fill=paints[part.paint], outline=decoration.INK)


def _paint_gender(image: Image.Image, placement: _Placement, gender: int, rng: np.random.Generator) -> None:
    """Paint a bow for girls or a pennant for boys at the upper left, with probability GENDER_SHOWN."""
    draw = ImageDraw.Draw(image)
    name = CHILD_GENDERS[gender]
    if name == "unisex" or rng.random() >= parameters.GENDER_SHOWN:
        return
    size = 17.0
    x, y = placement.middle + np.array([-0.62, -0.68]) * placement.scale
    x, y = max(float(x), size + 2), max(float(y), size + 2)
    if name == "girl":
        for side in (-1, 1):
            draw.polygon([(x, y), (x + side * size, y - size * 0.7), (x + side * size, y + size * 0.7)], fill=BOW)
        draw.ellipse((x - 5, y - 5, x + 5, y + 5), fill=decoration.CREAM)
    else:
        draw.polygon(
            [(x - size * 0.6, y - size), (x + size, y - size * 0.4), (x - size * 0.6, y + size * 0.2)], fill=PENNANT
        )
        draw.line([(x - size * 0.6, y - size), (x - size * 0.6, y + size)], fill=decoration.INK, width=4)


def _degrade(image: Image.Image, quality: str, rng: np.random.Generator) -> Image.Image:
    """Return the image reduced to SIZE, blurred or greyed according to `quality`."""
    if quality == "blurred":
        image = image.resize((15, 15), Image.Resampling.BOX)
    elif quality == "grey":
        image = ImageEnhance.Brightness(ImageEnhance.Color(image).enhance(0.05)).enhance(1.08)
    image = image.resize((SIZE, SIZE), Image.Resampling.BICUBIC if quality == "blurred" else Image.Resampling.BOX)
    return ImageEnhance.Brightness(image).enhance(float(rng.uniform(0.94, 1.04)))
