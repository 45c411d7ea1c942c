"""Sentence encoders: text alone. The directory layout is sentence-transformers', read without that library.

`modules.json` lists the steps: a transformer, a pooling of its token vectors, and possibly dense layers and a
normalisation, each in a folder of its own.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoModel

from feature_repo.errors import VitrineError
from producers.encoders import checkpoint_files
from producers.encoders.batches import BatchRunner
from producers.encoders.encoder import Pixels, Vectors
from producers.encoders.tokens import read_text_length

TEXTS_AT_ONCE = 128
POOLINGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_lasttoken": "lasttoken",
}
"""Flags of older configs to the names of newer ones."""

Layer = Callable[[torch.Tensor], torch.Tensor]


class SentenceEncoder:
    """A text tower alone; see `Encoder`."""

    has_images = False
    images_at_once = 1
    callers = 1
    geometry = None
    space = None

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        poolings: Sequence[str],
        layers: Sequence[torch.nn.Module],
        prompt: str,
        lower: bool,
        length: int,
        version: str,
        device: torch.device,
    ) -> None:
        self.model = model.to(device).eval()
        self.tokenizer = tokenizer
        self.layers = torch.nn.Sequential(*layers).to(device).eval()
        self.poolings = tuple(poolings)
        self.prompt = prompt
        self.lower = lower
        self.length = length
        self.version = version
        self.device = device
        self._texts = BatchRunner(TEXTS_AT_ONCE)
        self.dim = self.encode_texts(["x"]).shape[1]

    def encode_texts(self, texts: Sequence[str]) -> Vectors:
        if not texts:
            return np.empty((0, self.dim), np.float32)
        lengths = [len(text) for text in texts]
        return self._texts.run_shortest_first(lambda rows: self._features([texts[row] for row in rows]), lengths)

    def encode_images(self, images: Sequence[Image.Image]) -> Vectors:
        self._refuse_images()

    def encode_pixels(self, pixels: Pixels) -> Vectors:
        self._refuse_images()

    def _refuse_images(self) -> NoReturn:
        raise VitrineError(f"{self.version} reads text alone; choose an image-text encoder for pictures")

    def _features(self, texts: Sequence[str]) -> torch.Tensor:
        prompted = [self.prompt + text for text in texts]
        tokens = self.tokenizer(
            [text.lower() for text in prompted] if self.lower else prompted,
            padding="longest",
            truncation=True,
            max_length=self.length,
            return_tensors="pt",
        ).to(self.device)
        states = self.model(**tokens).last_hidden_state
        pooled = [pool(states, tokens["attention_mask"], pooling) for pooling in self.poolings]
        return self.layers(torch.cat(pooled, dim=1))


def pool(states: torch.Tensor, mask: torch.Tensor, pooling: str) -> torch.Tensor:
    """[n, width] from token vectors [n, length, width] and their mask [n, length] (1 for a token, 0 for padding)."""
    weights = mask.unsqueeze(-1).to(states.dtype)
    rows = torch.arange(len(states), device=states.device)
    match pooling:
        case "cls":
            return states[rows, mask.argmax(dim=1)]
        case "lasttoken":
            return states[rows, mask.shape[1] - 1 - mask.flip(1).argmax(dim=1)]
        case "max":
            return states.masked_fill(weights == 0, -torch.inf).amax(dim=1)
        case "mean":
            return (states * weights).sum(dim=1) / weights.sum(dim=1)
        case "mean_sqrt_len_tokens":
            return (states * weights).sum(dim=1) / weights.sum(dim=1).sqrt()
    raise ValueError(f"no pooling {pooling!r}")


def is_sentence_encoder(folder: Path) -> bool:
    """Whether a directory is laid out as a sentence encoder."""
    return (folder / "modules.json").is_file() or (folder / "1_Pooling/config.json").is_file()


def open_folder(folder: Path, version: str, device: torch.device) -> SentenceEncoder:
    """Open a sentence encoder's directory.

    Raises:
        VitrineError: weights, tokenizer or pooling are missing or do not fit, or a step is not known here.
    """
    steps = _steps(folder)
    if [kind for kind, _ in steps[:2]] != ["Transformer", "Pooling"]:
        raise VitrineError(
            f"{folder}: modules.json lists {[kind for kind, _ in steps]}; Transformer and Pooling come first"
        )
    body = steps[0][1]
    poolings, with_prompt = _poolings(steps[1][1])
    layers = [_dense(place) for kind, place in steps[2:] if kind == "Dense"]
    unknown = [kind for kind, _ in steps[2:] if kind not in ("Dense", "Normalize")]
    if unknown:
        raise VitrineError(
            f"{folder}: the step {unknown[0]} of modules.json is not known here; Dense and Normalize are"
        )

    model = checkpoint_files.read_model(AutoModel, body, unused=("pooler.",))
    tokenizer = checkpoint_files.read_tokenizer(body, model.config.vocab_size)
    settings = _optional(body / "sentence_bert_config.json")
    prompts = _optional(folder / "config_sentence_transformers.json")
    prompt = (prompts.get("prompts") or {}).get(prompts.get("default_prompt_name") or "", "")
    if prompt and not with_prompt:
        raise VitrineError(f"{folder}: its pooling leaves out the prompt's tokens, which is not done here")
    longest = read_text_length(model.config, tokenizer)
    return SentenceEncoder(
        model,
        tokenizer,
        poolings=poolings,
        layers=layers,
        prompt=prompt,
        lower=bool(settings.get("do_lower_case")),
        length=min(settings.get("max_seq_length") or longest, longest),
        version=version,
        device=device,
    )


def _steps(folder: Path) -> list[tuple[str, Path]]:
    """Kind and folder of each step, in order."""
    if not (folder / "modules.json").is_file():
        return [("Transformer", folder), ("Pooling", folder / "1_Pooling")]
    entries = checkpoint_files.read_json(folder / "modules.json")
    return [(entry["type"].rsplit(".", 1)[-1], folder / entry["path"]) for entry in entries]


def _poolings(place: Path) -> tuple[list[str], bool]:
    """The poolings whose results are joined, and whether the prompt's tokens take part."""
    config = checkpoint_files.read_json(place / "config.json")
    named = config.get("pooling_mode")
    poolings = [named] if isinstance(named, str) else named or [flag for flag in config if config[flag] is True]
    names = [POOLINGS.get(name, name) for name in poolings if name != "include_prompt"]
    unknown = sorted(set(names) - set(POOLINGS.values()))
    if unknown or not names:
        raise VitrineError(f"{place}: pooling {unknown or 'none'} is not known here; {sorted(POOLINGS.values())} are")
    return names, config.get("include_prompt", True)


def _dense(place: Path) -> torch.nn.Module:
    config = checkpoint_files.read_json(place / "config.json")
    name = config.get("activation_function", "torch.nn.modules.activation.Tanh")
    activation = getattr(torch.nn, name.rsplit(".", 1)[-1], None)
    weights = place / "model.safetensors"
    if not name.startswith("torch.nn.") or activation is None or config.get("use_residual") or not weights.is_file():
        raise VitrineError(
            f"{place}: a dense layer with safetensors, a torch.nn activation and no residual was expected"
        )
    linear = torch.nn.Linear(config["in_features"], config["out_features"], bias=config.get("bias", True))
    linear.load_state_dict({key.removeprefix("linear."): value for key, value in load_file(weights).items()})
    return torch.nn.Sequential(linear, activation())


def _optional(file: Path) -> dict[str, Any]:
    return checkpoint_files.read_json(file) if file.is_file() else {}
