"""The towers, the heads that the objectives need, and the loss of each objective."""

from typing import Any

import torch
from torch import nn

from producers.encoders.training.alignment import AlignmentLoss
from producers.encoders.training.bag_of_words_loss import LOSS_WEIGHT, BagOfWordsLoss
from producers.encoders.training.contrastive import MomentumOutputs, MomentumTowers, contrastive_loss
from producers.encoders.training.cross_attention import CrossAttentionDecoder
from producers.encoders.training.language import LanguageHead
from producers.encoders.training.layer_depths import measure_depths
from producers.encoders.training.matching import MatchingHead
from producers.encoders.training.pairs import PairBatch, TrainingPairs
from producers.encoders.training.towers import Towers

HEADS = ("words", "matching", "language", "alignment")
"""Attributes of `TrainingModel` that are trained beside the towers, if they are there."""


class TrainingModel(nn.Module):
    """Everything that has weights during training: the towers, their momentum copy, and the heads.

    The names of the attributes are the weight names in the training state. The attribute of a head is missing if its
    objective is not trained; `momentum` is then None.
    """

    def __init__(
        self,
        towers: Towers,
        objectives: tuple[str, ...],
        pairs: TrainingPairs,
        sample: torch.Tensor,
        *,
        vocabulary: int,
        max_tokens: int,
        start: int,
        end: int,
        begins: torch.Tensor | None,
        align: float,
    ) -> None:
        """Create the heads with random weights.

        Args:
            towers: the towers to train; not copied.
            objectives: names from `recipe.OBJECTIVES`.
            pairs: all pairs, for the word frequencies.
            sample: preprocessed images, at least one, for the width of their tokens: float32 [n, 3, height, width].
            vocabulary: number of tokens of the tokenizer.
            max_tokens: most tokens of a text, special tokens included.
            start: id of the token before the first word, for the language head.
            end: id of the token after the last word, for the language head.
            begins: whether a token begins a word rather than continuing one, bool [vocabulary], for the language head;
                None if all do.
            align: weight of the alignment loss; 0 leaves it out.
        """
        super().__init__()
        self.towers = towers
        width = towers.measure_token_width(sample)
        # One more position, for the start token that LanguageHead may insert.
        decoder: dict[str, Any] = {"vocabulary": vocabulary, "length": max_tokens + 1, "image_width": width}
        if "words" in objectives:
            self.words = BagOfWordsLoss(width, pairs)
        if "matching" in objectives:
            self.matching = MatchingHead(CrossAttentionDecoder(**decoder))
        if "language" in objectives:
            self.language = LanguageHead(CrossAttentionDecoder(**decoder), start=start, end=end, begins=begins)
        if align:
            self.alignment = AlignmentLoss()
        self.align = align
        self.momentum: MomentumTowers | None = None
        if "momentum" in objectives:
            with torch.no_grad():
                dimensions = towers.eval().encode_images(sample).vectors.shape[1]
            self.momentum = MomentumTowers(towers.train(), dimensions)

    def forward(self, batch: PairBatch, done_share: float) -> tuple[dict[str, torch.Tensor], MomentumOutputs | None]:
        """Compute the loss of each objective on a batch.

        Args:
            batch: the pairs, at least one. `words` and `language` read the titles without masked words, the other
                losses with them.
            done_share: share of the training's steps that are done, in [0, 1].

        Returns:
            The losses by name, already multiplied by their weights: `contrastive` always; `words`, `matching` and
            `language` if they are among the objectives; `alignment` if its weight is not 0. And the vectors of the
            batch by the moving average of the towers, which later batches are compared with (see `MomentumTowers`);
            None without the objective `momentum`.
        """
        features = self.towers.encode_images(batch.pixels)
        text = self.towers.encode_texts(batch.tokens, batch.mask)
        scale = self.towers.scale
        losses, outputs = {}, None
        if self.momentum is not None:
            outputs = self.momentum.encode(batch)
            losses["contrastive"] = self.momentum.compute_loss(features.vectors, text, outputs, scale, done_share)
        else:
            losses["contrastive"] = contrastive_loss(features.vectors, text, batch.title_ids, scale)
        if hasattr(self, "words"):
            losses["words"] = LOSS_WEIGHT * self.words(features.mean_token, batch.unmasked_tokens)
        if hasattr(self, "matching"):
            losses["matching"] = self.matching(batch, features, text, scale)
        if hasattr(self, "language"):
            losses["language"] = self.language(batch.unmasked_tokens, batch.mask, features.tokens)
        if self.align:
            losses["alignment"] = self.align * self.alignment(features.vectors, text, batch.rows, batch.partners)
        return losses, outputs

    def make_parameter_groups(
        self, learning_rate: float, head_learning_rate: float, weight_decay: float, layer_decay: float = 1.0
    ) -> list[dict[str, Any]]:
        """Return the parameter groups for the optimizer. The momentum copy and frozen weights of towers are in none.

        Args:
            learning_rate: learning rate of the towers.
            head_learning_rate: learning rate of the heads.
            weight_decay: weight decay of matrices; biases and other vectors have none.
            layer_decay: factor of the learning rate from each layer of a tower to the one below, in (0, 1]. What is
                above the layers has the whole rate, the embeddings below them the smallest.

        Returns:
            Two groups, matrices and other weights, for each learning rate of the towers, and two for the heads. Each
            has the keys `params`, `lr` and `weight_decay`; `params` may be empty.
        """
        by_rate: dict[float, list[torch.nn.Parameter]] = {learning_rate: []} if layer_decay == 1 else {}
        depths = measure_depths([name for name, p in self.towers.named_parameters() if p.requires_grad])
        for name, weight in self.towers.named_parameters():
            if weight.requires_grad:
                by_rate.setdefault(learning_rate * layer_decay ** depths[name], []).append(weight)
        heads = [p for name in HEADS if hasattr(self, name) for p in getattr(self, name).parameters()]
        return [
            {"params": [p for p in weights if (p.dim() > 1) == is_matrix], "lr": rate, "weight_decay": decay}
            for rate, weights in (*by_rate.items(), (head_learning_rate, heads))
            for is_matrix, decay in ((True, weight_decay), (False, 0.0))
        ]
