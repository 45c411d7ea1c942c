"""Language head: predicts a title from an image, token by token (BLIP, Li et al. 2022, section 3.2).

`produce captions` reads the head beside a checkpoint:

    OUT/language/config.json         settings of the decoder, the tokens that begin and end a line
    OUT/language/model.safetensors   weights
"""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional

from feature_repo.errors import CorruptDataError, NotFoundError
from producers.encoders.training.cross_attention import CrossAttentionDecoder

HEAD_FOLDER = "language"
"""Folder of the head in the folder of its checkpoint."""
LABEL_SMOOTHING = 0.1
"""Share of the target probability that is spread over all tokens."""


class LanguageHead(nn.Module):
    """The head that predicts titles. The names of the attributes are the weight names in its file."""

    begins: torch.Tensor
    """Whether a token begins a word rather than continuing one, bool [vocabulary]; `detokenize` needs it."""

    def __init__(
        self, reader: CrossAttentionDecoder, *, start: int, end: int, begins: torch.Tensor | None = None
    ) -> None:
        """Create the head.

        Args:
            reader: the decoder that reads the image and the words so far. Its word vectors also score the next word.
            start: id of the token before the first word.
            end: id of the token after the last word.
            begins: whether a token begins a word rather than continuing one, bool [vocabulary]; None if all do.
        """
        super().__init__()
        self.reader = reader
        self.start = start
        self.end = end
        vocabulary = reader.settings["vocabulary"]
        self.register_buffer("begins", torch.ones(vocabulary, dtype=torch.bool) if begins is None else begins)
        self.bias = nn.Parameter(torch.zeros(vocabulary))

    def forward(self, tokens: torch.Tensor, mask: torch.Tensor, image_tokens: torch.Tensor) -> torch.Tensor:
        """Compute the cross-entropy of each token, given the image and the tokens before it.

        Args:
            tokens: unmasked titles, int64 [n, length]. If one does not begin with the start token, it is put before
                all of them.
            mask: 1 where there is a token, 0 in the padding, int64 [n, length].
            image_tokens: tokens of the image of each title, float [n, image tokens, width].

        Returns:
            A scalar, the mean over all tokens except the start tokens and the padding.
        """
        if (tokens[:, 0] != self.start).any():  # the tokenizer puts no token before the first word
            tokens = torch.cat([torch.full_like(tokens[:, :1], self.start), tokens], dim=1)
            mask = torch.cat([torch.ones_like(mask[:, :1]), mask], dim=1)
        logits = self.compute_logits(self.reader(tokens[:, :-1], mask[:, :-1], image_tokens, causal=True))
        targets = tokens[:, 1:].masked_fill(mask[:, 1:] == 0, -100)
        return functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), label_smoothing=LABEL_SMOOTHING)

    def compute_logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return the logits of the next token, float32 [..., vocabulary], from hidden states of `reader`."""
        return (functional.linear(hidden, self.reader.words.weight) + self.bias).float()

    def save(self, folder: Path) -> None:
        """Write the head to HEAD_FOLDER in the folder of a checkpoint, its settings and its weights.

        Args:
            folder: it is created if it does not exist. A head in it is replaced.
        """
        head_folder = folder / HEAD_FOLDER
        head_folder.mkdir(parents=True, exist_ok=True)
        settings = {"reader": self.reader.settings, "start": self.start, "end": self.end}
        (head_folder / "config.json").write_text(json.dumps(settings, indent=1))
        weights = {name: value.contiguous() for name, value in self.state_dict().items()}
        save_file(weights, head_folder / "model.safetensors")


def remove_head(folder: Path) -> None:
    """Remove the folder of the language head from that of a checkpoint. Nothing happens if it has none."""
    shutil.rmtree(folder / HEAD_FOLDER, ignore_errors=True)


def copy_head(source: Path, folder: Path) -> None:
    """Replace the language head of a checkpoint by that of another, whose image tokens and tokenizer are the same.

    Args:
        source: folder of the checkpoint whose head is copied. If it has none, the other has none afterwards.
        folder: folder of the checkpoint that gets the head.
    """
    remove_head(folder)
    if (source / HEAD_FOLDER).is_dir():
        shutil.copytree(source / HEAD_FOLDER, folder / HEAD_FOLDER)


def load_head(folder: Path) -> LanguageHead:
    """Load the language head of a checkpoint to the CPU, in evaluation mode.

    Args:
        folder: the folder of the checkpoint; the head is in HEAD_FOLDER in it.

    Raises:
        NotFoundError: the checkpoint has no language head.
        CorruptDataError: the head cannot be read.
    """
    head_folder = folder / HEAD_FOLDER
    if not (head_folder / "config.json").is_file():
        raise NotFoundError(
            f"{folder}: the checkpoint has no language head; train one with `produce encoder --objectives "
            "contrastive,words,language`"
        )
    try:
        settings: dict[str, Any] = json.loads((head_folder / "config.json").read_text())
        decoder = CrossAttentionDecoder(**settings["reader"])
        head = LanguageHead(decoder, start=settings["start"], end=settings["end"])
        head.load_state_dict(load_file(head_folder / "model.safetensors"))
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise CorruptDataError(f"{head_folder}: the language head cannot be read ({reason}); train it again") from error
    return head.eval()


def find_word_beginnings(tokenizer: Any, titles: Sequence[str]) -> torch.Tensor | None:
    """Find the tokens that begin a word, for a tokenizer that cannot turn tokens into text by itself.

    The tiny CLIP's tokenizer cannot, because Chinese has no spaces.

    Args:
        tokenizer: the tokenizer of a checkpoint.
        titles: the titles in which the tokens are counted.

    Returns:
        Whether each token begins a word in at least half of its occurrences, bool [vocabulary]; True for a token that
        does not occur. None if the tokenizer has a decoder of its own, which `detokenize` then uses.
    """
    if tokenizer.backend_tokenizer.decoder is not None:
        return None
    balance = [0] * len(tokenizer)
    for title, encoding in zip(titles, tokenizer.backend_tokenizer.encode_batch(list(titles)), strict=True):
        for token, (start, end) in zip(encoding.ids, encoding.offsets, strict=True):
            if end > start:
                balance[token] += 1 if start == 0 or not _is_latin(title[start - 1]) else -1
    return torch.tensor([count >= 0 for count in balance])


def detokenize(tokenizer: Any, tokens: Sequence[int], begins: torch.Tensor) -> str:
    """Return the text of `tokens` without special tokens; "" if there are no others.

    If the tokenizer has no decoder, a space is put between two Latin words and nowhere else.

    Args:
        tokenizer: the tokenizer of the checkpoint.
        tokens: token ids of one line.
        begins: whether a token begins a word, bool [vocabulary], as in `LanguageHead.begins`. Not used if the
            tokenizer has a decoder of its own.
    """
    if tokenizer.backend_tokenizer.decoder is not None:
        return str(tokenizer.decode(tokens, skip_special_tokens=True)).strip()
    line = ""
    for token in tokens:
        if token in tokenizer.all_special_ids:
            continue
        piece = tokenizer.convert_ids_to_tokens(token)
        line += f" {piece}" if begins[token] and line and _is_latin(line[-1]) and _is_latin(piece[0]) else piece
    return line


def _is_latin(letter: str) -> bool:
    return letter.isascii() and letter.isalnum()
