"""One product's picture, drawn flat; and all of them, in several processes.

The design decides category, colour, pattern, emblem, cut and how old the child is that it fits; the seller decides
backdrop, crop and angle. All rng comes from the product's own stream: the picture is the same whoever draws it.
"""

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance

from feature_repo.schema import CHILD_AGES, CHILD_GENDERS
from producers.datasets.shop import decoration, parameters, vocabulary
from producers.datasets.shop.assortment import Assortment
from producers.datasets.shop.decoration import CANVAS, Colour
from producers.datasets.shop.random_streams import make_generator
from producers.datasets.shop.shapes import Points, Silhouette, ellipse
from producers.datasets.shop.silhouettes import child, outline

SIZE = 96
"""Width and height of a picture in pixels."""
CHUNK = 250
BOW: Colour = (232, 62, 128)
PENNANT: Colour = (40, 104, 200)


def draw_images(assortment: Assortment, folder: Path, *, seed: int, processes: int) -> Iterator[int]:
    """Write `folder`/<product_id>.jpg for each product that has a picture; yields how many products are done, in steps.

    The files do not depend on `processes`.
    """
    n = len(assortment.products.design)
    chunks = [range(a, min(a + CHUNK, n)) for a in range(0, n, CHUNK)]
    if processes == 1 or len(chunks) == 1:
        for chunk in chunks:
            yield _draw_chunk(assortment, folder, seed, chunk)
        return
    # Spawned, not forked: the parent may hold threads of Arrow and NumPy.
    with ProcessPoolExecutor(
        processes, mp_context=get_context("spawn"), initializer=_set_assortment, initargs=(assortment,)
    ) as pool:
        yield from pool.map(_draw_chunk_of_shared, [folder] * len(chunks), [seed] * len(chunks), chunks)


_assortment: Assortment | None = None  # of this worker process


def _set_assortment(assortment: Assortment) -> None:
    global _assortment
    _assortment = assortment


def _draw_chunk_of_shared(folder: Path, seed: int, chunk: range) -> int:
    assert _assortment is not None
    return _draw_chunk(_assortment, folder, seed, chunk)


def _draw_chunk(assortment: Assortment, folder: Path, seed: int, chunk: range) -> int:
    ids = assortment.products.ids
    for product in chunk:
        if assortment.products.image_quality[product] != "missing":
            draw_image(assortment, product, seed=seed).save(folder / f"{ids[product]}.jpg", quality=88)
    return len(chunk)


def draw_image(assortment: Assortment, product: int, *, seed: int) -> Image.Image:
    """The picture of the product in that row, SIZE pixels square, RGB; of low quality if it is said to be."""
    designs, goods = assortment.designs, assortment.products
    rng = make_generator(seed, "picture", product)
    design = goods.design[product]
    age, looks = int(designs.age[design]), float(designs.apparent_age[design])
    growth = float(np.clip((looks + 0.3) / (len(CHILD_AGES) - 0.4), 0, 1))
    detail = _pick_detail(age, len(CHILD_AGES), make_generator(seed, "detail", int(design)))
    shape = outline(vocabulary.CATEGORIES[designs.category[design]].name, growth, detail)
    quality = str(goods.image_quality[product])

    image = decoration.background(int(goods.seller[product]), rng)
    shows_model = bool(rng.random() < parameters.MODEL_SHOWN)
    if shows_model:
        _paint_child(image, age, rng)
    zoom = float(rng.uniform(0.90, 1.12)) * (0.55 + 0.35 * growth) * (0.45 if quality == "small" else 1.0)
    middle = CANVAS * (0.5 + rng.uniform(-0.04, 0.04, size=2) + np.array([-0.07 if shows_model else 0, 0]))
    placed = _Placement(middle, zoom * CANVAS * 0.5, float(np.deg2rad(rng.normal(0, 5))), bool(rng.random() < 0.5))
    _paint_product(image, shape, placed, designs.levels[design], int(designs.second_colour[design]), rng)
    _paint_gender(image, placed, int(designs.gender[design]), rng)
    return _degrade(image, quality, rng)


class _Placement:
    """Turns unit coordinates into pixels."""

    def __init__(self, middle: np.ndarray, scale: float, angle: float, flip: bool) -> None:
        turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
        self.matrix = np.diag([-1.0 if flip else 1.0, 1.0]) @ turn * scale
        self.middle, self.scale = middle, scale

    def __call__(self, points: Points) -> list[tuple[float, float]]:
        return [(x, y) for x, y in (points @ self.matrix + self.middle).tolist()]


def _pick_detail(true: int, n: int, rng: np.random.Generator) -> int:
    """The true stage, at times a neighbour."""
    if rng.random() < parameters.AGE_DETAIL_FIDELITY:
        return true
    return int(np.clip(true + (1 if rng.random() < 0.5 else -1), 0, n - 1))


def _paint_product(
    image: Image.Image, shape: Silhouette, placed: _Placement, levels: np.ndarray, second: int, rng: np.random.Generator
) -> None:
    colour_, pattern_, emblem_, cut_, _ = (int(level) for level in levels)
    colour = decoration.mix(decoration.PALETTE[colour_], (255, 255, 255), float(rng.uniform(0, 0.12)))
    colour = decoration.mix(colour, (0, 0, 0), float(rng.uniform(0, 0.08)))
    accent = decoration.PALETTE[second]
    cut = vocabulary.CUTS[cut_].name
    paints = {"accent": accent, "dark": decoration.INK, "light": decoration.CREAM}
    draw = ImageDraw.Draw(image)
    polygons = [(placed(part.points), part.paint) for part in shape.parts]
    bottom = max(y for points, _ in polygons for _, y in points)
    x, reach = float(placed.middle[0]), placed.scale * 0.7
    draw.ellipse((x - reach, bottom - 7, x + reach, bottom + 9), fill=(222, 218, 214))
    # A thin rim keeps pale things apart from pale backdrops; the outlined cut has a bold one.
    rim, width = (decoration.INK, 11) if cut == "outlined" else (decoration.mix(colour, decoration.INK, 0.35), 4)
    for points, _ in polygons:
        draw.line([*points, points[0], points[1]], fill=rim, width=width, joint="curve")
    cloth = _cloth(colour, accent, vocabulary.PATTERNS[pattern_].name, cut, placed, rng)
    for points, paint in polygons:
        if paint == "body":
            mask = Image.new("L", (CANVAS, CANVAS), 0)
            ImageDraw.Draw(mask).polygon(points, fill=255)
            if cut == "piped":
                image.paste(accent, (0, 0), mask)
                inner = placed.middle + 0  # piping: the edge in the second colour
                centre = np.mean(points, axis=0) * 0.5 + inner * 0.5
                mask = Image.new("L", (CANVAS, CANVAS), 0)
                ImageDraw.Draw(mask).polygon([tuple(p) for p in (np.array(points) - centre) * 0.84 + centre], fill=255)
            image.paste(cloth, (0, 0), mask)
        else:
            draw.polygon(points, fill=paints[paint])
    _paint_emblem(draw, vocabulary.EMBLEMS[emblem_].name, shape.emblem, placed)


def _cloth(
    colour: Colour, accent: Colour, name: str, cut: str, placed: _Placement, rng: np.random.Generator
) -> Image.Image:
    """The material, to be cut out along the outline."""
    cloth = Image.new("RGB", (CANVAS, CANVAS), colour)
    x, y = (int(at) for at in rng.integers(0, decoration.PITCH[name], size=2))
    print_ = decoration.pattern(name).crop((x, y, x + CANVAS, y + CANVAS))
    cloth.paste(decoration.contrast(colour), (0, 0), print_)
    draw = ImageDraw.Draw(cloth)
    if cut == "two-tone":
        draw.rectangle((0, float(placed.middle[1]) + 0.18 * placed.scale, CANVAS, CANVAS), fill=accent)
    elif cut == "patched":
        for x_, y_ in ((-0.42, -0.3), (0.4, 0.5)):
            (cx, cy), size = placed(np.array([(x_, y_)]))[0], 0.27 * placed.scale
            draw.rectangle((cx - size, cy - size, cx + size, cy + size), fill=accent, outline=decoration.CREAM, width=3)
    return cloth


def _paint_emblem(draw: ImageDraw.ImageDraw, name: str, place: tuple[float, float, float], placed: _Placement) -> None:
    if name == "none":
        return
    x, y, size = place
    size = max(size, 0.24)
    disc = ellipse(x, y, size * 1.2, size * 1.2)
    draw.polygon(placed(disc), fill=decoration.CREAM)
    for points, colour in decoration.emblem(name):
        draw.polygon(placed(points * size * 0.9 + [x, y]), fill=colour)


def _paint_child(image: Image.Image, stage: int, rng: np.random.Generator) -> None:
    """The child that it fits, in the lower right corner."""
    height = CANVAS * float(rng.uniform(0.27, 0.31))
    at = np.array([CANVAS * 0.86, CANVAS * 0.97 - height])
    clothes = decoration.PALETTE[int(rng.integers(len(decoration.PALETTE)))]
    paints = {"accent": decoration.mix(clothes, decoration.CREAM, 0.3), "dark": decoration.INK, "skin": decoration.SKIN}
    draw = ImageDraw.Draw(image)
    for part in child(stage).parts:
        points = [(x, y) for x, y in (part.points * height * [0.8, 1.0] + at).tolist()]
        draw.polygon(points, fill=paints[part.paint], outline=decoration.INK)


def _paint_gender(image: Image.Image, placed: _Placement, gender: int, rng: np.random.Generator) -> None:
    """A bow for girls, a pennant for boys, in the upper left corner of the thing; not always."""
    draw = ImageDraw.Draw(image)
    name = CHILD_GENDERS[gender]
    if name == "unisex" or rng.random() >= parameters.GENDER_SHOWN:
        return
    size = 17.0
    x, y = placed.middle + np.array([-0.62, -0.68]) * placed.scale
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
    """Made small; blurred or greyed where the seller did no better."""
    if quality == "blurred":
        image = image.resize((15, 15), Image.Resampling.BOX)
    elif quality == "grey":
        image = ImageEnhance.Brightness(ImageEnhance.Color(image).enhance(0.05)).enhance(1.08)
    image = image.resize((SIZE, SIZE), Image.Resampling.BICUBIC if quality == "blurred" else Image.Resampling.BOX)
    return ImageEnhance.Brightness(image).enhance(float(rng.uniform(0.94, 1.04)))
