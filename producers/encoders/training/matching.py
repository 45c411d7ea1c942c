"""Loss for deciding whether a title belongs to an image, on hard negatives (Li et al. 2021, ALBEF, section 3.2).

For each true pair, two false pairs are drawn from the batch: the image with another title, and the title with another
image. They are drawn with the probabilities that the towers give them.
"""

import torch
from torch import nn
from torch.nn import functional

from producers.encoders.training.cross_attention import CrossAttentionDecoder
from producers.encoders.training.pairs import PairBatch
from producers.encoders.training.towers import ImageFeatures


class MatchingHead(nn.Module):
    """The head that decides whether a title belongs to an image, and its loss."""

    def __init__(self, reader: CrossAttentionDecoder) -> None:
        """Create the head with random weights.

        Args:
            reader: the decoder that reads the title and the image.
        """
        super().__init__()
        self.reader = reader
        self.verdict = nn.Linear(reader.settings["width"], 2)

    def forward(
        self, batch: PairBatch, features: ImageFeatures, text: torch.Tensor, scale: torch.Tensor
    ) -> torch.Tensor:
        """Compute the cross-entropy of telling true from false pairs.

        The false pairs are drawn with torch's global seed. A pair whose title all others share gets none.

        Args:
            batch: the true pairs.
            features: what the image tower computed for their images.
            text: unit vectors of their titles, float [n, d].
            scale: factor of the cosines, a scalar.

        Returns:
            A scalar, the mean over all true and false pairs; 0 if all titles of the batch are equal, because then no
            pair is false.
        """
        differs = batch.title_ids[:, None] != batch.title_ids[None, :]
        with_negatives = torch.where(differs.any(dim=1))[0]
        if not len(with_negatives):
            return features.tokens.sum() * 0
        with torch.no_grad():
            cosine = features.vectors @ text.T * scale
            wrong_title, wrong_image = (
                torch.multinomial((functional.softmax(logits, dim=1).clamp(min=1e-9) * differs)[with_negatives], 1)[
                    :, 0
                ]
                for logits in (cosine, cosine.T)
            )
        true_pairs = torch.arange(len(batch.title_ids), device=text.device)
        images = torch.cat([true_pairs, with_negatives, wrong_image])
        titles = torch.cat([true_pairs, wrong_title, with_negatives])
        is_match = torch.zeros(len(images), dtype=torch.long, device=text.device)
        is_match[: len(true_pairs)] = 1
        hidden = self.reader(batch.tokens[titles], batch.mask[titles], features.tokens[images], causal=False)
        return functional.cross_entropy(self.verdict(hidden[:, 0]).float(), is_match)
