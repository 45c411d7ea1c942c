"""Products that one user clicked in one session are to lie close: what shoppers hold to be alike, not what words say.

In each batch a product is to find its partner among the others by fused vectors, as CLIP's pictures find their titles.
A clicked product is clicked again the more often the more popular it is; every partner stands in the batch as often as
it was clicked, so popularity cancels out within the softmax.
"""

import math

import torch
from torch import nn
from torch.nn import functional

from producers.encoders.training.contrastive import shared

FIRST_SCALE = 8.0
MAX_SCALE = 50.0


class Alignment(nn.Module):
    """A temperature of its own: co-clicked products are alike, and far from the same."""

    def __init__(self) -> None:
        super().__init__()
        self.logit_scale = nn.Parameter(torch.tensor(math.log(FIRST_SCALE)))

    def forward(
        self, image: torch.Tensor, text: torch.Tensor, rows: torch.Tensor, partners: torch.Tensor
    ) -> torch.Tensor:
        """InfoNCE of fused rows; 0 where no row has a partner.

        Args:
            image: unit rows [n, d]; text: the same products' unit rows.
            rows: which product each is [n]; one that is there twice is no stranger to itself.
            partners: place of each row's partner in the batch, -1 for none [n].
        """
        asked = torch.where(partners >= 0)[0]
        if not len(asked):
            return self.logit_scale * 0
        fused = functional.normalize(image + text)
        cosine = fused[asked] @ fused.T * self.logit_scale.exp().clamp(max=MAX_SCALE)
        itself = rows[asked][:, None] == rows[None, :]
        return functional.cross_entropy(cosine.masked_fill(itself, -1e4), shared(rows[partners[asked]], rows))
