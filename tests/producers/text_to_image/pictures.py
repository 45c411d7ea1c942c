"""A folder of pictures of one colour each, whose sentences name the colour."""

import json
from pathlib import Path

from PIL import Image

COLOURS = {"pink": (246, 158, 186), "navy": (46, 66, 124), "green": (124, 182, 104)}


def write_pictures(folder: Path, count: int = 12) -> Path:
    """Write `count` pictures and metadata.jsonl, and return the folder."""
    folder.mkdir(parents=True)
    lines = []
    for number in range(count):
        name = list(COLOURS)[number % len(COLOURS)]
        Image.new("RGB", (20 + number, 20), COLOURS[name]).save(folder / f"{number}.png")
        lines.append(json.dumps({"file_name": f"{number}.png", "text": f"a {name} romper"}) + "\n")
    (folder / "metadata.jsonl").write_text("".join(lines))
    return folder
