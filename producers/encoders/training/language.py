"""The title written from the picture, word by word (Li et al. 2022, BLIP, section 3.2): what `produce captions` uses.

OUT/language/config.json         sizes of the reader, the tokens that begin and end a line
OUT/language/model.safetensors   weights
"""

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional

from feature_repo.errors import VitrineError
from producers.encoders.training.cross_attention import Reader

FOLDER = "language"
SMOOTHING = 0.1


class Language(nn.Module):
    """The head that writes titles."""

    begins: torch.Tensor

    def __init__(self, reader: Reader, *, start: int, end: int, begins: torch.Tensor | None = None) -> None:
        """Make the head.

        Args:
            start: token before the first word; end: token after the last.
            begins: whether a token begins a word rather than going on with one, bool [vocabulary].
        """
        super().__init__()
        self.reader = reader
        self.start = start
        self.end = end
        vocabulary = reader.settings["vocabulary"]
        self.register_buffer("begins", torch.ones(vocabulary, dtype=torch.bool) if begins is None else begins)
        self.bias = nn.Parameter(torch.zeros(vocabulary))

    def forward(self, tokens: torch.Tensor, mask: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
        """Cross-entropy of each word of whole titles [n, length], given the picture and the words before it."""
        line = torch.cat([torch.full_like(tokens[:, :1], self.start), tokens], dim=1) if self._bare(tokens) else tokens
        there = torch.cat([torch.ones_like(mask[:, :1]), mask], dim=1) if self._bare(tokens) else mask
        said = self._odds(self.reader(line[:, :-1], there[:, :-1], seen, causal=True))
        wanted = line[:, 1:].masked_fill(there[:, 1:] == 0, -100)
        return functional.cross_entropy(said.flatten(0, 1), wanted.flatten(), label_smoothing=SMOOTHING)

    @torch.inference_mode()
    def write(self, seen: torch.Tensor) -> list[list[int]]:
        """The likeliest next word, again and again, for each picture's tokens [n, places, width].

        A word that would make a pair of words appear a second time is not taken, so that no line runs in a circle.
        """
        count = len(seen)
        line = torch.full((count, 1), self.start, device=seen.device)
        ended = torch.zeros(count, dtype=torch.bool, device=seen.device)
        for _ in range(self.reader.settings["length"] - 1):
            odds = self._odds(self.reader(line, torch.ones_like(line), seen, causal=True)[:, -1])
            odds[:, self.start] = -torch.inf
            odds.scatter_(1, torch.where(line[:, :-1] == line[:, -1:], line[:, 1:], self.start), -torch.inf)
            word = torch.where(ended, self.end, odds.argmax(dim=1))
            ended |= word == self.end
            line = torch.cat([line, word[:, None]], dim=1)
            if ended.all():
                break
        rows = line[:, 1:].tolist()
        return [row[: row.index(self.end)] if self.end in row else row for row in rows]

    def save(self, folder: Path) -> None:
        """Write the head beside the checkpoint in `folder`."""
        place = folder / FOLDER
        place.mkdir(parents=True, exist_ok=True)
        settings = {"reader": self.reader.settings, "start": self.start, "end": self.end}
        (place / "config.json").write_text(json.dumps(settings, indent=1))
        save_file({name: value.contiguous() for name, value in self.state_dict().items()}, place / "model.safetensors")

    def _bare(self, tokens: torch.Tensor) -> bool:
        """Whether the tokenizer puts nothing before the first word."""
        return bool((tokens[:, 0] != self.start).any())

    def _odds(self, read: torch.Tensor) -> torch.Tensor:
        return (functional.linear(read, self.reader.words.weight) + self.bias).float()


def remove(folder: Path) -> None:
    """Remove the head that an earlier training left beside the checkpoint in `folder`, if there is one."""
    shutil.rmtree(folder / FOLDER, ignore_errors=True)


def read(folder: Path) -> Language:
    """The head of the checkpoint in `folder`.

    Raises:
        VitrineError: it has none, or one that cannot be read.
    """
    place = folder / FOLDER
    if not (place / "config.json").is_file():
        raise VitrineError(
            f"{folder}: the checkpoint has no language head; train one with `produce encoder --objectives "
            "contrastive,words,language`"
        )
    try:
        settings: dict[str, Any] = json.loads((place / "config.json").read_text())
        head = Language(Reader(**settings["reader"]), start=settings["start"], end=settings["end"])
        head.load_state_dict(load_file(place / "model.safetensors"))
    except Exception as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise VitrineError(f"{place}: the language head cannot be read ({first}); train it again") from error
    return head.eval()
