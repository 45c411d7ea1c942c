"""The options that the trainings of `produce picture` share: train, match and pretrain."""

from pathlib import Path
from typing import Annotated

import typer

ModelOption = Annotated[Path, typer.Option(help="Checkpoint: a folder in the form of diffusers.")]
PicturesOption = Annotated[Path, typer.Option(help="Folder of pictures whose metadata.jsonl has their sentences.")]
NewCheckpointOption = Annotated[Path, typer.Option("--output", "--out", help="New folder for the checkpoint.")]
StepsOption = Annotated[int, typer.Option(min=1, help="Training steps.")]
BatchOption = Annotated[int, typer.Option(min=1, help="Sentences in a training step, over all processes.")]
AccumulateOption = Annotated[
    int, typer.Option(min=1, help="Number of parts in which a process computes its share of a step, to save memory.")
]
LearningRateOption = Annotated[float, typer.Option(min=1e-8, max=1.0, help="Peak learning rate.")]
PrecisionOption = Annotated[str, typer.Option(help="Precision of the computation: float32 or bfloat16.")]
SaveEveryOption = Annotated[int, typer.Option(min=1, help="Steps between two saved states of the training.")]
SeedOption = Annotated[int, typer.Option(min=0, help="Seed of new weights, of the order and of the noise.")]
