"""Does this title belong to this picture? Asked of the pairs most easily mistaken (Li et al. 2021, ALBEF, section 3.2).

Beside each true pair stand two false ones of the batch, drawn as the towers take them for likely: the picture with
another's title, and the title with another's picture.
"""

import torch
from torch import nn
from torch.nn import functional

from producers.encoders.training.cross_attention import Reader
from producers.encoders.training.pairs import Batch
from producers.encoders.training.towers import Seen


class Matching(nn.Module):
    """The head that says whether a title belongs to a picture."""

    def __init__(self, reader: Reader) -> None:
        super().__init__()
        self.reader = reader
        self.verdict = nn.Linear(reader.settings["width"], 2)

    def forward(self, batch: Batch, seen: Seen, text: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        """Cross-entropy over true and false pairs; 0 where every title of the batch is the same.

        Args:
            text: unit rows [n, d] of the text tower.
        """
        others = batch.same[:, None] != batch.same[None, :]
        mistakable = torch.where(others.any(dim=1))[0]
        if not len(mistakable):
            return seen.tokens.sum() * 0
        with torch.no_grad():
            cosine = seen.vectors @ text.T * scale
            title, picture = (
                torch.multinomial((functional.softmax(asked, dim=1).clamp(min=1e-9) * others)[mistakable], 1)[:, 0]
                for asked in (cosine, cosine.T)
            )
        everything = torch.arange(len(batch.same), device=text.device)
        pictures = torch.cat([everything, mistakable, picture])
        titles = torch.cat([everything, title, mistakable])
        true = torch.zeros(len(pictures), dtype=torch.long, device=text.device)
        true[: len(everything)] = 1
        said = self.judge(batch.tokens[titles], batch.mask[titles], seen.tokens[pictures])
        return functional.cross_entropy(said, true)

    def judge(self, tokens: torch.Tensor, mask: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
        """float32 [n, 2]: the odds of "no" and "yes" for each title beside its picture."""
        read = self.reader(tokens, mask, seen, causal=False)
        return self.verdict(read[:, 0]).float()
