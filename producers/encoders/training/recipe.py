"""What an encoder is trained by: objectives, batch, rates. One frozen object, checked when it is made."""

from dataclasses import dataclass

from feature_repo.errors import UsageError

OBJECTIVES = ("contrastive", "words", "momentum", "matching", "language")
"""Each is a file of this package; `momentum` changes what `contrastive` compares with."""
DEFAULT = ("contrastive", "words")
"""What pays within a minute on two cores; docs/encoder.md has the figures of the others."""
FILTERS = ("none", "looks", "similarity")
PRECISIONS = ("auto", "float32", "bfloat16")
FROM_NOTHING = 4e-3
"""Learning rate of the small model: its residual tower takes one that would ruin a transformer."""
FINE_TUNING = 3e-5


@dataclass(frozen=True)
class Recipe:
    """How to learn."""

    objectives: tuple[str, ...] = DEFAULT
    batch: int = 64
    """Pairs in a step, over all processes and micro-batches."""
    accumulate: int = 1
    """Micro-batches that a process takes one after the other within a step."""
    learning_rate: float | None = None
    """Of the towers; FROM_NOTHING or FINE_TUNING if not given."""
    weight_decay: float = 0.05
    precision: str = "auto"
    """`auto` is bfloat16 on a GPU that has it and float32 elsewhere."""
    keep: str = "none"
    """Which pairs are left out, of FILTERS: see filtering.py."""
    crop: float = 0.95
    """The smallest, of a picture's area: a tighter one hides how large things are, which tells whom a romper fits."""
    jitter: float = 0.0
    """How far colours are changed by chance, as a share; not at all, for colour is a property of the product."""
    align: float = 0.0
    """Weight of the objective that draws products of one session together, where clicks are given."""
    save_every: int = 500
    """Steps between two saved states."""

    def __post_init__(self) -> None:
        unknown = [name for name in self.objectives if name not in OBJECTIVES]
        if unknown:
            raise UsageError(f"--objectives names {unknown[0]!r}; there are {', '.join(OBJECTIVES)}")
        if "contrastive" not in self.objectives:
            raise UsageError("--objectives leaves out contrastive: without it there is no common space to write")
        if self.precision not in PRECISIONS:
            raise UsageError(f"--precision is {self.precision!r}; there are {', '.join(PRECISIONS)}")
        if self.keep not in FILTERS:
            raise UsageError(f"--filter is {self.keep!r}; there are {', '.join(FILTERS)}")
        if not (0 < self.crop <= 1 and 0 <= self.jitter <= 1):
            raise UsageError(
                f"--crop {self.crop} and --jitter {self.jitter} are shares, the first above 0, of at most 1"
            )
        if not self.align >= 0:
            raise UsageError(f"--align-weight is {self.align}: it must not be negative")
        if min(self.batch, self.accumulate, self.save_every) < 1:
            raise UsageError("--batch, --accumulate and --save-every must be at least 1")

    def micro_batch(self, processes: int) -> int:
        """Pairs that one forward takes.

        Raises:
            UsageError: the batch does not fall into equal parts, or its parts are too small to compare.
        """
        parts = processes * self.accumulate
        if self.batch % parts or (parts > 1 and self.batch // parts < 2):
            raise UsageError(
                f"a batch of {self.batch} does not fall into {processes} x {self.accumulate} equal parts of at least 2"
            )
        return self.batch // parts
