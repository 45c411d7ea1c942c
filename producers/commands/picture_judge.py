"""`produce picture judge`."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from feature_repo import console
from feature_repo.console import JsonOption
from feature_repo.errors import UsageError
from feature_repo.files.atomic_write import write_text

DEFAULT_ATTRIBUTES = "colour,category,pattern"


def judge(
    pictures: Annotated[
        Path,
        typer.Option(help="Folder of generated pictures; its metadata.jsonl has the attributes that were asked for."),
    ],
    real: Annotated[
        Path,
        typer.Option(help="Folder of real pictures; its metadata.jsonl has attributes, and groups to hold out by."),
    ],
    encoder: Annotated[str, typer.Option(help="Encoder of pictures and of the sentences' language.")],
    attributes: Annotated[str, typer.Option(help="Attributes to judge, separated by commas.")] = DEFAULT_ATTRIBUTES,
    text_key: Annotated[
        str,
        typer.Option(help="Key of the sentences in metadata.jsonl, in the encoder's language."),
    ] = "text",
    real_text_key: Annotated[str, typer.Option(help="The same for --real.")] = "text",
    seed: Annotated[int, typer.Option(min=0, help="Seed of the classifier.")] = 0,
    json: JsonOption = None,
) -> None:
    """Measure whether generated pictures show what their sentences ask for.

    A classifier is trained on the real pictures. Beside each share the report has the classifier's accuracy on held-out
    pictures and the level of chance. It also has retrieval of the sentence, a Fréchet distance, and diversity.
    """
    from producers.evaluation.encoding import open_text_image_encoder
    from producers.text_to_image.judging.judge import judge_pictures, prepare_real_pictures
    from producers.text_to_image.judging.pictures import read_attributed_pictures, read_size

    names = tuple(name.strip() for name in attributes.split(",") if name.strip())
    if not names:
        raise UsageError("--attributes is empty; expected names such as colour,pattern")
    generated, originals = read_attributed_pictures(pictures, text_key), read_attributed_pictures(real, real_text_key)
    with open_text_image_encoder(encoder) as opened, console.make_progress_bar() as bar:
        task = bar.add_task("train the classifier", total=None)
        reference = prepare_real_pictures(
            originals,
            names,
            read_size(generated),
            opened,
            seed=seed,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
        run = judge_pictures(generated, reference, opened, datetime.now(UTC))
    typer.echo(str(run))
    if json is not None:
        write_text(json, run.to_json())
        typer.echo(f"figures: {json}")
