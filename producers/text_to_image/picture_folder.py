"""Folders of generated pictures in Hugging Face's image-folder form, and files of the sentences to generate them from.

metadata.jsonl   one line a picture: file_name, text, seed, steps, guidance, model, and what the sentence's line said
00000.png        RGB, without loss
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from feature_repo.errors import InvalidInputError, NotFoundError
from feature_repo.files.atomic_write import replace_atomically, require_new_folder
from feature_repo.files.json_lines import Malformed, read_lines, read_objects, refuse_line, require_well_formed
from producers.text_to_image.checkpoint import compute_model_version
from producers.text_to_image.generate import default_side, generate_images

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline

METADATA = "metadata.jsonl"


@dataclass(frozen=True)
class SentenceRow:
    """A sentence to generate pictures from."""

    text: str
    fields: dict[str, Any] = field(default_factory=dict)
    """Further fields of its line, such as the attributes that it asks for; they are copied to each picture's line."""


@dataclass(frozen=True)
class GenerationSettings:
    """How pictures are generated."""

    seed: int = 0
    """Seed of the first picture; each further picture has the next one."""
    count: int = 1
    """Pictures of each sentence."""
    steps: int = 30
    guidance: float = 4.0
    height: int | None = None
    """Pixels; None takes the size that the model was trained on."""
    width: int | None = None
    batch: int = 8
    """Pictures that are generated together."""


def read_sentences(file: Path) -> list[SentenceRow]:
    """Return the sentences of a file: one a line, or for `.jsonl` one JSON object a line with `text` and other fields.

    The metadata.jsonl of an image folder is such a file; its `file_name` becomes `reference`.

    Raises:
        NotFoundError: there is no such file.
        InvalidInputError: a line is malformed, or there is none.
    """
    if not file.is_file():
        raise NotFoundError(f"{file}: there is no such file; expected one sentence a line")
    malformed: Malformed = []
    sentences: list[SentenceRow] = []
    if file.suffix != ".jsonl":
        sentences = [SentenceRow(line) for _, line in read_lines(file, malformed)]
    else:
        for number, line, row in read_objects(file, malformed):
            text = row.pop("text", None)
            if not isinstance(text, str) or not text.strip():
                malformed.append(refuse_line(file, number, "no text", line))
                continue
            if "file_name" in row:
                row["reference"] = row.pop("file_name")
            sentences.append(SentenceRow(text, row))
    require_well_formed(malformed)
    if not sentences:
        raise InvalidInputError(f"{file}: the file is empty; expected one sentence a line")
    return sentences


def generate_folder(
    pipeline: "StableDiffusionPipeline",
    sentences: Sequence[SentenceRow],
    folder: Path,
    settings: GenerationSettings,
    *,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> int:
    """Generate `settings.count` pictures of each sentence into a new folder, which appears when all are there.

    Args:
        pipeline: from `checkpoint.open_pipeline`.
        sentences: at least one.
        folder: it must not exist, unless it is empty.
        settings: how the pictures are generated.
        progress: called after each batch with the pictures done and their total.

    Returns:
        The number of pictures.

    Raises:
        ConflictError: the folder has content.
        InvalidInputError: a sentence or a setting is out of its bounds.
    """
    require_new_folder(folder)
    rows = list(_list_pictures(pipeline, sentences, settings))
    with replace_atomically(folder) as unfinished:
        unfinished.mkdir()
        for start in range(0, len(rows), settings.batch):
            batch = rows[start : start + settings.batch]
            images = generate_images(
                pipeline,
                [row["text"] for row in batch],
                seeds=[row["seed"] for row in batch],
                steps=settings.steps,
                guidance=settings.guidance,
                height=settings.height,
                width=settings.width,
            )
            for row, image in zip(batch, images, strict=True):
                image.save(unfinished / row["file_name"])
            progress(start + len(batch), len(rows))
        lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
        (unfinished / METADATA).write_text("".join(lines), encoding="utf-8")
    return len(rows)


def _list_pictures(
    pipeline: "StableDiffusionPipeline", sentences: Sequence[SentenceRow], settings: GenerationSettings
) -> Iterator[dict[str, Any]]:
    """Yield the line of each picture: those of one sentence one after the other, numbered from `settings.seed`."""
    model, side = compute_model_version(pipeline), default_side(pipeline)
    repeated = [sentence for sentence in sentences for _ in range(settings.count)]
    for number, sentence in enumerate(repeated):
        yield sentence.fields | {
            "file_name": f"{number:05d}.png",
            "text": sentence.text,
            "seed": settings.seed + number,
            "steps": settings.steps,
            "guidance": settings.guidance,
            "height": settings.height or side,
            "width": settings.width or side,
            "model": model,
        }
