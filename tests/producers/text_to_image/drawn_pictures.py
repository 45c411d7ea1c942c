"""Drawn pictures with a known answer: a shape of a colour on white, and an encoder of their colour."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from feature_repo.images.decoding import Source, open_image
from producers.encoders.encoder import Vectors

COLOURS = {"red": (210, 50, 50), "green": (60, 160, 70), "blue": (50, 80, 200)}
SHAPES = ("disc", "square")


def draw_picture(colour: str, shape: str, rng: np.random.Generator, side: int = 24) -> Image.Image:
    image = Image.new("RGB", (side, side), (255, 255, 255))
    left, top = (int(at) for at in rng.integers(2, 7, size=2))
    box = (left, top, left + side - 10, top + side - 10)
    draw = ImageDraw.Draw(image)
    (draw.ellipse if shape == "disc" else draw.rectangle)(box, fill=COLOURS[colour])
    noise = rng.integers(-6, 7, size=(side, side, 3))
    return Image.fromarray((np.asarray(image) + noise).clip(0, 255).astype(np.uint8))


def write_pictures(
    folder: Path, shown: Sequence[tuple[str, str]], asked: Sequence[tuple[str, str]] | None = None, seed: int = 0
) -> Path:
    """Write pictures that show some attributes, with lines that ask for `asked`; by default for what they show."""
    folder.mkdir(parents=True, exist_ok=True)
    rng, lines = np.random.default_rng(seed), []
    for number, ((colour, shape), (wanted, form)) in enumerate(zip(shown, asked or shown, strict=True)):
        draw_picture(colour, shape, rng).save(folder / f"{number}.png")
        line = {"file_name": f"{number}.png", "text": f"a {wanted} {form}", "group": f"g{number // 2}"}
        lines.append(json.dumps(line | {"attributes": {"colour": wanted, "shape": form}}))
    (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def list_pairs(n: int, seed: int) -> list[tuple[str, str]]:
    rng = np.random.default_rng(seed)
    return [(list(COLOURS)[int(rng.integers(3))], SHAPES[int(rng.integers(2))]) for _ in range(n)]


class ColourEncoder:
    """An encoder whose space is the mean colour: of a text what it names, of a picture its middle."""

    version = "colour@0"

    def encode_texts(self, texts: Sequence[str]) -> Vectors:
        colours = [next((rgb for name, rgb in COLOURS.items() if name in text), (0, 0, 0)) for text in texts]
        return self._normalize(np.array(colours, np.float32).reshape(-1, 3))

    def encode_pictures(self, sources: Sequence[Source]) -> Vectors:
        middles = [np.asarray(open_image(source), np.float32)[9:15, 9:15].mean(axis=(0, 1)) for source in sources]
        return self._normalize(np.array(middles, np.float32).reshape(-1, 3))

    @staticmethod
    def _normalize(rows: Vectors) -> Vectors:
        # The order of colours by cosine needs them apart, so that the mean grey is taken off.
        rows = rows - rows.mean(axis=1, keepdims=True)
        return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)
