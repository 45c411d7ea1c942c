"""The loss of a batch for each task."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from producers.encoders.encoder import Outputs
from producers.encoders.training.contrastive import contrastive_loss
from producers.encoders.tuning.examples import (
    GUARD,
    NEAREST,
    Rows,
    SameProducts,
    Sentences,
    Vectors,
    find_guards,
    mine_hard_negatives,
    split_judged,
)
from producers.encoders.tuning.losses import naming_loss, supervised_contrastive_loss
from producers.encoders.tuning.tunable import TextInputs, TunableEncoder, to_float

DROPOUT = 0.2
"""Share of the values of an output that a step does not see."""
MAX_SCALE = 100.0
"""Largest factor of the cosines."""
MATCHING_BATCH, MATCHING_GROUPS, MEMBERS = 1024, 256, 4
"""Products in a batch of matching; groups in it, and the most products of a group in it."""
TEXT_WEIGHT = 0.5
"""Weight of the title's loss beside those of the image and of both together: titles of the same product differ."""
SELECTION_BATCH, TITLES, SENTENCES = 2048, 256, 400
"""Products, titles, and sentences made of words in a batch of selection, at most. Titles cost most of a step."""
LABELLED_SENTENCES, JUDGED = 32, 8
"""Labelled sentences in a batch, and the most products of each kind that are drawn for one."""
NAMING_WEIGHT, LABELLED_WEIGHT = 10.0, 3.0
"""Weights of the sentences made of words, and of labelled sentences, beside image and title."""


@dataclass(frozen=True)
class TunedProducts:
    """n products that are trained on."""

    images: Outputs
    """Outputs of their images, float16 [n, width]."""
    texts: TextInputs
    """Their titles."""
    title_ids: Rows
    """Equal for equal titles [n]."""

    def select(self, rows: Rows) -> "TunedProducts":
        """Return some of the products."""
        return TunedProducts(self.images[rows], self.texts.select(rows), self.title_ids[rows])


class MatchingLoss(nn.Module):
    """Draws products that are the same with near ones that are not, and compares images, titles, and both together.

    Image and title of one product stay close, so that a sentence still finds pictures.
    """

    def __init__(self, encoder: TunableEncoder, products: TunedProducts, known: SameProducts, fused: Vectors) -> None:
        """Mine the hard negatives.

        Args:
            encoder: the encoder before it is tuned.
            products: n products.
            known: about them; at least one group of two.
            fused: their fused vectors by `encoder`, unit rows [n, d].
        """
        super().__init__()
        self._encoder, self._products, self._known, self._fused = encoder, products, known, fused
        self._groups = known.list_groups()
        self._guards = find_guards(fused, self._groups)
        grouped = np.concatenate(self._groups)
        mined = mine_hard_negatives(fused, known, self._guards, grouped)
        self._hard = np.full((len(fused), mined.shape[1]), -1)
        self._hard[grouped] = mined
        self.scale = nn.Parameter(torch.tensor(20.0).log())
        self.title_scale = nn.Parameter(torch.tensor(20.0).log())

    def forward(self, rng: np.random.Generator) -> torch.Tensor:
        """Return the loss of a random batch, a scalar."""
        rows = self._draw(rng)
        same, different = self._known.compare(rows)
        cosines, guards = self._fused[rows] @ self._fused[rows].T, self._guards[rows]
        is_far = (cosines < guards[:, None]) & (cosines < guards[None, :])
        itself = np.eye(len(rows), dtype=bool)
        positive = torch.from_numpy(same & ~itself)
        counted = torch.from_numpy((different | is_far) & ~itself)
        images = self._encoder.encode_images(functional.dropout(to_float(self._products.images[rows]), DROPOUT))
        texts = self._encoder.encode_texts(self._products.texts, rows)
        scale, title_scale = (each.exp().clamp(max=MAX_SCALE) for each in (self.scale, self.title_scale))
        loss = contrastive_loss(images, texts, torch.from_numpy(self._products.title_ids[rows]), title_scale)
        fused = functional.normalize(images + texts)
        for vectors, weight in ((images, 1.0), (fused, 1.0), (texts, TEXT_WEIGHT)):
            loss = loss + weight * supervised_contrastive_loss(vectors, vectors, positive, counted, scale)
        return loss

    def _draw(self, rng: np.random.Generator) -> Rows:
        """Return the rows of a batch, ascending: groups, hard negatives of some of them, and random products."""
        chosen = rng.choice(len(self._groups), min(MATCHING_GROUPS, len(self._groups)), replace=False)
        members = np.concatenate([rng.permutation(self._groups[number])[:MEMBERS] for number in chosen])
        hard = rng.permutation(np.unique(self._hard[members]))
        hard = hard[hard >= 0][: MATCHING_BATCH // 2]
        labelled = self._known.different[np.isin(self._known.different, members).any(axis=1)].ravel()
        others = rng.choice(len(self._fused), min(MATCHING_BATCH, len(self._fused)), replace=False)
        rows = np.concatenate([members, labelled, hard])
        return np.unique(np.concatenate([rows, others[: max(0, MATCHING_BATCH - len(rows))]]))


class SelectionLoss(nn.Module):
    """Draws products and sentences, and compares them; image and title of one product stay close.

    Sentences made of words are compared by `naming_loss`, labelled ones by `supervised_contrastive_loss`.
    """

    def __init__(
        self,
        encoder: TunableEncoder,
        products: TunedProducts,
        worded: tuple[Sentences, TextInputs],
        labelled: tuple[Sentences, TextInputs] | None,
        images: Vectors,
    ) -> None:
        """Mine the hard negatives of labelled sentences.

        Args:
            encoder: the encoder before it is tuned.
            products: n products.
            worded: sentences made of words, about the n products, and as the heads read them.
            labelled: the same of labelled sentences; each fits at least one of the products. None without labels.
            images: the products' image vectors by `encoder`, unit rows [n, d].
        """
        super().__init__()
        self._encoder, self._products, self._worded, self._labelled = encoder, products, worded, labelled
        fits = worded[0].fits
        self._share = torch.from_numpy(np.maximum(fits.sum(axis=1), 1) / fits.shape[1]).float()
        self._far: list[Rows] = []
        self._unknown: list[Rows] = []
        if labelled:
            with torch.no_grad():
                queries = encoder.encode_texts(labelled[1], np.arange(len(labelled[1]))).numpy()
            for number, cosines in enumerate(queries @ images.T):
                judged = np.concatenate(split_judged(labelled[0], number))
                guard = GUARD * float(cosines[split_judged(labelled[0], number)[0]].mean())
                order = np.argsort(-cosines, kind="stable")
                unjudged = order[~np.isin(order, judged)]
                self._far.append(unjudged[cosines[unjudged] < guard][:NEAREST])
                self._unknown.append(unjudged[cosines[unjudged] >= guard])
        self.title_scale = nn.Parameter(torch.tensor(20.0).log())
        self.naming_scale = nn.Parameter(torch.tensor(10.0).log())
        self.scale = nn.Parameter(torch.tensor(20.0).log())

    def forward(self, rng: np.random.Generator) -> torch.Tensor:
        """Return the loss of a random batch, a scalar."""
        n = len(self._products.title_ids)
        rows = rng.choice(n, min(SELECTION_BATCH, n), replace=False)
        drawn: Rows = np.empty(0, np.int64)
        if self._labelled:
            count = len(self._labelled[1])
            drawn = np.sort(rng.choice(count, min(LABELLED_SENTENCES, count), replace=False))
            rows = np.unique(np.concatenate([rows, *(self._draw_judged(number, rng) for number in drawn)]))
        images = self._encoder.encode_images(functional.dropout(to_float(self._products.images[rows]), DROPOUT))
        titled = np.sort(rng.choice(len(rows), min(TITLES, len(rows)), replace=False))
        texts = self._encoder.encode_texts(self._products.texts, rows[titled])
        title_ids = torch.from_numpy(self._products.title_ids[rows[titled]])
        title_scale = self.title_scale.exp().clamp(max=MAX_SCALE)
        loss = contrastive_loss(images[torch.from_numpy(titled)], texts, title_ids, title_scale)
        sentences, inputs = self._worded
        chosen = np.sort(rng.choice(len(inputs), min(SENTENCES, len(inputs)), replace=False))
        share = self._share[chosen]
        weights = torch.from_numpy(sentences.fits[chosen][:, rows].toarray().T).float() * -share.log()
        vectors = self._encoder.encode_texts(inputs, chosen)
        scale = self.naming_scale.exp().clamp(max=MAX_SCALE)
        loss = loss + NAMING_WEIGHT * naming_loss(images, vectors, share, weights, scale)
        if self._labelled:
            loss = loss + LABELLED_WEIGHT * self._compare_labelled(images, rows, drawn)
        return loss

    def _draw_judged(self, number: int, rng: np.random.Generator) -> Rows:
        """Return some products that fit a labelled sentence, some that do not, and some near ones."""
        assert self._labelled
        parts = (*split_judged(self._labelled[0], number), self._far[number])
        return np.concatenate([rng.permutation(part)[:JUDGED] for part in parts])

    def _compare_labelled(self, images: torch.Tensor, rows: Rows, drawn: Rows) -> torch.Tensor:
        assert self._labelled
        sentences, inputs = self._labelled
        positive = np.zeros((len(drawn), len(rows)), bool)
        counted = np.ones((len(drawn), len(rows)), bool)
        for line, number in enumerate(drawn):
            positive[line] = np.isin(rows, split_judged(sentences, number)[0])
            counted[line] = ~np.isin(rows, self._unknown[number])
        queries = self._encoder.encode_texts(inputs, drawn)
        scale = self.scale.exp().clamp(max=MAX_SCALE)
        masks = torch.from_numpy(positive), torch.from_numpy(counted)
        return supervised_contrastive_loss(queries, images, *masks, scale)
