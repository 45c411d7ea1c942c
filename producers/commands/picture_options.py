"""The options that the trainings of `produce picture` share: train, match and pretrain."""

from pathlib import Path
from typing import Annotated

import typer

ModelOption = Annotated[Path, typer.Option(help="Checkpoint: a folder in the form of diffusers.")]
PicturesOption = Annotated[Path, typer.Option(help="Folder of pictures whose metadata.jsonl has their sentences.")]
NewCheckpointOption = Annotated[Path, typer.Option("--output", "--out", help="New folder for the checkpoint.")]
StepsOption = Annotated[int, typer.Option(min=1, help="Training steps.")]
BatchOption = Annotated[int, typer.Option(min=1, help="Sentences of a step, over all processes.")]
AccumulateOption = Annotated[int, typer.Option(min=1, help="Compute a process's part of a step in so many parts.")]
LearningRateOption = Annotated[float, typer.Option(min=1e-8, max=1.0, help="Peak learning rate.")]
PrecisionOption = Annotated[str, typer.Option(help="float32 or bfloat16: of the computation.")]
SaveEveryOption = Annotated[int, typer.Option(min=1, help="Steps after which the state is saved.")]
SeedOption = Annotated[int, typer.Option(min=0, help="Seed of new weights, of the order and of the noise.")]
