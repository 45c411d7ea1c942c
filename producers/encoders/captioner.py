"""Write and score lines about images, with an encoder's towers and the language head trained with it."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from feature_repo.errors import InvalidInputError
from feature_repo.images.geometry import Geometry
from producers.encoders import clip_family
from producers.encoders.checkpoint import load
from producers.encoders.checkpoint_version import resolve_checkpoint
from producers.encoders.decoding import complete_lines, score_lines
from producers.encoders.encoder import Pixels
from producers.encoders.training import language
from producers.encoders.training.towers import ImageFeatures, Towers

BATCH_SIZE = 128
"""Images that are encoded at once."""


class Captioner:
    """Writes and scores lines about images; `open_captioner` loads a captioner from a checkpoint."""

    def __init__(self, encoder: clip_family.DualEncoder, geometry: Geometry, head: language.LanguageHead) -> None:
        """Combine an encoder and its language head.

        Args:
            encoder: the encoder whose towers and tokenizer are used.
            geometry: how to resize images for `encode_images`.
            head: the language head that was trained with that encoder; it is moved to the encoder's device.
        """
        self.version = encoder.version
        """The version of the encoder, `name@fingerprint`; the fingerprint covers the files of the head too."""
        self.geometry = geometry
        """How to resize images for `encode_images`."""
        self.line_tokens: int = head.reader.settings["length"]
        """Most tokens of a line."""
        self._encoder = encoder
        self._tokenizer: Any = encoder.tokenizer
        self._towers = Towers(encoder.model, masked=True).eval()
        self._head = head.to(encoder.device)
        self._first_tokens: dict[str, int | None] = {}
        self._scale, self._shift, self._dtype = encoder.scale, encoder.shift, encoder.dtype

    def encode_images(self, pixels: Pixels) -> ImageFeatures:
        """Return the vectors and the tokens of images, in order; at most BATCH_SIZE fit the memory well.

        Args:
            pixels: images resized by `geometry`, uint8 [n, height, width, 3], in RGB.
        """
        batch = torch.from_numpy(np.ascontiguousarray(pixels)).to(self._scale.device)
        with torch.inference_mode():
            values = (batch.permute(0, 3, 1, 2).float() * self._scale + self._shift).to(self._dtype)
            features = self._towers.encode_images(values)
            return ImageFeatures(features.vectors, features.tokens.float())

    def complete(
        self,
        images: ImageFeatures,
        rows: NDArray[np.int64],
        prompts: Sequence[str],
        *,
        forbidden: Sequence[str] = (),
        temperature: float = 1.0,
        uniforms: NDArray[np.float32] | None = None,
    ) -> list[list[str]]:
        """Continue lines by the language head, until it ends them; see `complete_lines`.

        Args:
            images: from `encode_images`.
            rows: the image of each of n lines, by its number from 0.
            prompts: the beginnings of n lines; "" for a line that the head begins.
            forbidden: words that a continuation must not state. The token with which such a word begins is never
                chosen, so that no word is broken off. One that the tokenizer divides otherwise may still occur.
            temperature: as for `complete_lines`.
            uniforms: as for `complete_lines`.

        Returns:
            For each line its continuations: the text of its first word, of its first two words, and so on, the whole
            continuation last. Empty if the head adds nothing.
        """
        first = {token for word in forbidden if (token := self._find_first_token(word)) is not None}
        lines = complete_lines(
            self._head,
            images.tokens[torch.from_numpy(rows)],
            [self._tokenize(prompt) for prompt in prompts],
            unused=[*self._tokenizer.all_special_ids, *first],
            temperature=temperature,
            uniforms=uniforms,
        )
        return [self._list_continuations(line) for line in lines]

    def score(
        self, images: ImageFeatures, rows: NDArray[np.int64], lines: Sequence[str]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return how probable lines are by the language head, and how well they match their images.

        Args:
            images: from `encode_images`.
            rows: the image of each of n lines, by its number from 0.
            lines: n lines.

        Returns:
            The mean log probability of the tokens of each line, and the cosine of the text tower's vector of the line
            and the image tower's vector of the image, float32 [n] each. The cosine is 0 where a tower gives no vector.
        """
        tokens = [self._tokenize(line) for line in lines]
        fluency = score_lines(self._head, images.tokens[torch.from_numpy(rows)], tokens)
        match = (self._encoder.encode_texts(lines) * images.vectors.cpu().numpy()[rows]).sum(axis=1)
        return fluency, np.nan_to_num(match)

    def _find_first_token(self, word: str) -> int | None:
        """Return the first token of a word, None for none. A captioner is asked for the same words again and again."""
        if word not in self._first_tokens:
            tokens = self._tokenize(word)
            self._first_tokens[word] = tokens[0] if tokens else None
        return self._first_tokens[word]

    def _tokenize(self, text: str) -> list[int]:
        tokens: list[int] = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        return tokens

    def _list_continuations(self, tokens: Sequence[int]) -> list[str]:
        """Return the texts of the first tokens, cut before each token that begins a word, the whole text last."""
        cuts = [end for end in range(1, len(tokens)) if self._head.begins[tokens[end]]] + [len(tokens)]
        texts = [language.detokenize(self._tokenizer, tokens[:end], self._head.begins) for end in cuts]
        return [text for text in texts if text]


def open_captioner(path_or_name: str, *, device: str | None = None) -> Captioner:
    """Load the captioner of a checkpoint directory or hub name.

    Args:
        path_or_name: a checkpoint directory if one of that path exists, else a hub name.
        device: where the model runs, such as "cpu" or "cuda:0"; None takes the first GPU, or the CPU if there is none.

    Raises:
        NotFoundError: there is no such checkpoint, or it has no language head.
        InvalidInputError: it is not an image-text checkpoint that `producers.encoders.load` accepts, or its image
            processor does more than resize and crop.
        UnavailableError: there is no such directory, the hub cannot be reached, and nothing was downloaded earlier.
        CorruptDataError: a file of the checkpoint or of the head is missing or unreadable.
    """
    head = language.load_head(resolve_checkpoint(path_or_name))
    encoder = load(path_or_name, device=device)
    if not isinstance(encoder, clip_family.DualEncoder) or encoder.geometry is None:
        raise InvalidInputError(
            f"{path_or_name}: its images cannot be resized for a language head; train another encoder"
        )
    return Captioner(encoder, encoder.geometry, head)
