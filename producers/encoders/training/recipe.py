"""The settings of a training. `Recipe` checks them when it is created."""

from dataclasses import dataclass

from feature_repo.errors import UsageError

OBJECTIVES = ("contrastive", "words", "momentum", "matching", "language")
"""Each objective has a module in this package; `momentum` changes the candidates of `contrastive`."""
DEFAULT_OBJECTIVES = ("contrastive", "words")
"""The best choice for about a minute of training on two cores; docs/how-to/train-an-encoder.md has the figures of the
others."""
FILTERS = ("none", "looks", "similarity")
"""Which pairs are left out: none; blank images and short titles; or the least similar pairs (filtering.py)."""
PRECISIONS = ("auto", "float32", "bfloat16")
"""Number formats of the forward passes. The weights are float32 in all of them."""
FROM_SCRATCH_LEARNING_RATE = 4e-3
"""Learning rate of the tiny CLIP. It is too high for a transformer."""
FINE_TUNING_LAYER_DECAY = 0.8
"""Factor of the learning rate from layer to layer if a checkpoint is trained further: lower layers know what is
general, and change least."""
FINE_TUNING_BATCH = 256
"""Pairs in a step of fine-tuning. Small batches have easy negatives: a checkpoint loses by them what it knew."""
FINE_TUNING_LEARNING_RATE = 3e-5
"""Learning rate of the towers of a checkpoint that is trained further."""


@dataclass(frozen=True)
class Recipe:
    """The settings of a training.

    The `repr` of this object is part of the identity of a training (`train._identity`): if a field is renamed, the
    saved state of an interrupted training is refused.

    Raises:
        UsageError: a setting is outside its documented range.
    """

    objectives: tuple[str, ...] = DEFAULT_OBJECTIVES
    """Names from OBJECTIVES; `contrastive` must be among them."""
    batch: int = 64
    """Pairs in a step, over all processes and micro-batches; at least 1."""
    accumulate: int = 1
    """Micro-batches that a process computes one after the other in a step; at least 1."""
    learning_rate: float | None = None
    """Highest learning rate of the towers. None: FINE_TUNING_LEARNING_RATE if training starts from a checkpoint, else
    FROM_SCRATCH_LEARNING_RATE."""
    layer_decay: float = 1.0
    """Factor of the learning rate from each layer of a tower to the one below, in (0, 1]; 1 trains all alike."""
    weight_decay: float = 0.05
    """AdamW's weight decay of the matrices of towers and heads; other weights have none."""
    precision: str = "auto"
    """One of PRECISIONS. `auto` is bfloat16 on a GPU that supports it and float32 elsewhere."""
    keep: str = "none"
    """One of FILTERS. `looks` leaves out blank images and short titles before training; `similarity` leaves out the
    tenth of the pairs whose image and title are the least similar, halfway through the training."""
    crop: float = 0.95
    """Smallest share of an image's area that a crop keeps, in (0, 1]; `crop_images` changes the shape of crops too. A
    smaller crop hides the size of things, which tells the age that a garment fits."""
    jitter: float = 0.0
    """Largest random change of a colour channel, as a share in [0, 1]. The default is none, because colour is a
    property of the product."""
    align: float = 0.0
    """Weight of the alignment loss, used when clicks are given; at least 0."""
    save_every: int = 500
    """Steps between two saved states; at least 1."""

    def __post_init__(self) -> None:
        unknown = [name for name in self.objectives if name not in OBJECTIVES]
        if unknown:
            raise UsageError(f"--objectives has the unknown name {unknown[0]!r}; choose from {', '.join(OBJECTIVES)}")
        if "contrastive" not in self.objectives:
            raise UsageError("--objectives must include contrastive: it trains the space that the vectors are in")
        if self.precision not in PRECISIONS:
            raise UsageError(f"--precision is {self.precision!r}; choose from {', '.join(PRECISIONS)}")
        if self.keep not in FILTERS:
            raise UsageError(f"--filter is {self.keep!r}; choose from {', '.join(FILTERS)}")
        if not (0 < self.crop <= 1 and 0 <= self.jitter <= 1):
            raise UsageError(f"--crop {self.crop} must be in (0, 1] and --jitter {self.jitter} in [0, 1]")
        if not 0 < self.layer_decay <= 1:
            raise UsageError(f"--layer-decay is {self.layer_decay}; it must be in (0, 1]")
        if not self.align >= 0:
            raise UsageError(f"--align-weight is {self.align}; it must not be negative")
        if min(self.batch, self.accumulate, self.save_every) < 1:
            raise UsageError("--batch, --accumulate and --save-every must be at least 1")

    def micro_batch_size(self, process_count: int) -> int:
        """Return the number of pairs in one forward pass of one process.

        This is `batch` divided by `process_count` and by `accumulate`.

        Args:
            process_count: number of processes that train together, at least 1.

        Raises:
            UsageError: the batch is divided, and not into equal parts of at least 2 pairs. An undivided batch may have
                1 pair.
        """
        parts = process_count * self.accumulate
        if self.batch % parts or (parts > 1 and self.batch // parts < 2):
            raise UsageError(
                f"a batch of {self.batch} does not divide into {process_count} processes x {self.accumulate} "
                "micro-batches of equal parts of at least 2 pairs; change --batch or --accumulate"
            )
        return self.batch // parts
