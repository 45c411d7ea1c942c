"""The towers, the heads that the objectives need, and the sum of their losses."""

from typing import Any

import torch
from torch import nn

from producers.encoders.training.alignment import Alignment
from producers.encoders.training.bag_of_words_loss import WEIGHT, Words
from producers.encoders.training.contrastive import contrastive
from producers.encoders.training.cross_attention import Reader
from producers.encoders.training.language import Language
from producers.encoders.training.matching import Matching
from producers.encoders.training.momentum import Momentum, Said
from producers.encoders.training.pairs import Batch, Pairs
from producers.encoders.training.towers import Towers

HEADS = ("words", "matching", "language", "alignment")


class Learner(nn.Module):
    """Everything that has weights while training."""

    def __init__(
        self,
        towers: Towers,
        objectives: tuple[str, ...],
        pairs: Pairs,
        sample: torch.Tensor,
        *,
        vocabulary: int,
        length: int,
        start: int,
        end: int,
        begins: torch.Tensor | None,
        align: float,
    ) -> None:
        """Make the heads.

        Args:
            sample: a few prepared pictures, to see how wide their tokens are.
            vocabulary: tokens the tokenizer knows; length: most tokens of a text.
            start, end, begins: as in `Language`.
            align: weight of the behaviour alignment, 0 for none.
        """
        super().__init__()
        self.towers = towers
        width = towers.width(sample)
        reader: dict[str, Any] = {"vocabulary": vocabulary, "length": length + 1, "image_width": width}
        if "words" in objectives:
            self.words = Words(width, pairs)
        if "matching" in objectives:
            self.matching = Matching(Reader(**reader))
        if "language" in objectives:
            self.language = Language(Reader(**reader), start=start, end=end, begins=begins)
        if align:
            self.alignment = Alignment()
        self.align = align
        self.momentum: Momentum | None = None
        if "momentum" in objectives:
            with torch.no_grad():
                dimensions = towers.eval().images(sample).vectors.shape[1]
            self.momentum = Momentum(towers.train(), dimensions)

    def forward(self, batch: Batch, done: float) -> tuple[dict[str, torch.Tensor], Said | None]:
        """The loss of each objective, and what the momentum copy said, to be put into its queue after the step.

        Args:
            done: share of the training that is done, in [0, 1].
        """
        seen = self.towers.images(batch.pixels)
        text = self.towers.texts(batch.tokens, batch.mask)
        scale = self.towers.scale
        losses, said = {}, None
        if self.momentum is not None:
            said = self.momentum.say(batch)
            losses["contrastive"] = self.momentum.contrast(seen.vectors, text, said, scale, done)
        else:
            losses["contrastive"] = contrastive(seen.vectors, text, batch.same, scale)
        if hasattr(self, "words"):
            losses["words"] = WEIGHT * self.words(seen.mean, batch.whole)
        if hasattr(self, "matching"):
            losses["matching"] = self.matching(batch, seen, text, scale)
        if hasattr(self, "language"):
            losses["language"] = self.language(batch.whole, batch.mask, seen.tokens)
        if self.align:
            losses["alignment"] = self.align * self.alignment(seen.vectors, text, batch.rows, batch.partners)
        return losses, said

    def groups(self, rate: float, head_rate: float, weight_decay: float) -> list[dict[str, Any]]:
        """Of the optimizer: matrices decay, the rest does not; heads are new and learn at a rate of their own."""
        towers = [p for p in self.towers.parameters() if p.requires_grad]
        heads = [p for name in HEADS if hasattr(self, name) for p in getattr(self, name).parameters()]
        return [
            {"params": [p for p in weights if (p.dim() > 1) == matrix], "lr": lr, "weight_decay": decay}
            for weights, lr in ((towers, rate), (heads, head_rate))
            for matrix, decay in ((True, weight_decay), (False, 0.0))
        ]
