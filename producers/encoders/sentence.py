"""Sentence encoders, which encode text only. Reads the layout of sentence-transformers without that library.

`modules.json` lists the modules in order: a transformer, a pooling of its token vectors, and optionally dense layers
and a normalization. Each has a folder of its own.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoModel

from feature_repo.errors import InvalidInputError
from producers.encoders import checkpoint_files
from producers.encoders.batches import BatchRunner
from producers.encoders.encoder import Pixels, Vectors
from producers.encoders.runtime import Runtime
from producers.encoders.tokens import Tokens, read_text_length

BATCH_SIZE = 128
"""Texts per batch, on a CPU and on a GPU."""
POOLINGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_lasttoken": "lasttoken",
}
"""Flags of older configurations, and the names that newer ones use."""

Layer = Callable[[torch.Tensor], torch.Tensor]


class SentenceEncoder:
    """An encoder with a text tower and no image tower. It implements the protocol `Encoder`."""

    has_images = False
    has_mask = True
    image_batch_size = 1
    concurrent_calls = 1
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
        runtime: Runtime,
    ) -> None:
        """Prepare a model for inference; `load_encoder` reads the parts from a checkpoint.

        Args:
            model: transformers model that gives token vectors.
            tokenizer: the model's tokenizer.
            poolings: names among the values of POOLINGS, at least one; their results are concatenated in this order.
            layers: applied to the pooled vectors, in order; may be none.
            prompt: put before every text; may be empty.
            lower: whether texts, and the prompt, are lowercased.
            length: largest number of tokens, those of the prompt included; longer texts are truncated.
            version: `name@fingerprint`, the fingerprint from `checkpoint_version.fingerprint`.
            runtime: where the model runs, and in which type of numbers; a sentence encoder is not compiled.
        """
        self.device = runtime.device
        self.model = model.to(runtime.device, runtime.dtype).eval()
        self.tokenizer = tokenizer
        self.layers = torch.nn.Sequential(*layers).to(runtime.device).eval()
        self.poolings = tuple(poolings)
        self.prompt = prompt
        self.lower = lower
        self.text_length = length
        self.version = version
        self._texts = BatchRunner(BATCH_SIZE)
        self.dim = self.encode_texts(["x"]).shape[1]

    def encode_texts(self, texts: Sequence[str]) -> Vectors:
        """Return unit vectors float32 [n, dim] of texts, in order; NaN where the model gives none.

        The prompt is put before each. Texts that have more than `text_length` tokens with it are truncated. No texts
        give [0, dim].
        """
        if not texts:
            return np.empty((0, self.dim), np.float32)
        lengths = [len(text) for text in texts]
        return self._texts.run_shortest_first(lambda rows: self._features([texts[row] for row in rows]), lengths)

    def encode_images(self, images: Sequence[Image.Image]) -> Vectors:
        """Raise InvalidInputError, also for no images: there is no image tower."""
        self._refuse_images()

    def encode_pixels(self, pixels: Pixels) -> Vectors:
        """Raise InvalidInputError, also for no images: there is no image tower."""
        self._refuse_images()

    def _refuse_images(self) -> NoReturn:
        raise InvalidInputError(f"{self.version} encodes text only; choose an image-text encoder for images")

    def _features(self, texts: Sequence[str]) -> torch.Tensor:
        """Return the vectors [n, dim] of one batch of texts, not of unit length."""
        tokens = self.tokenizer(
            self.shape_texts(texts),
            padding="longest",
            truncation=True,
            max_length=self.text_length,
            return_tensors="pt",
        ).to(self.device)
        return self.text_tower(tokens["input_ids"], tokens["attention_mask"])

    def shape_texts(self, texts: Sequence[str]) -> list[str]:
        """Return texts as the tokenizer takes them: after the prompt, lowercased if the model wants that."""
        prompted = [self.prompt + text for text in texts]
        return [text.lower() for text in prompted] if self.lower else prompted

    def text_inputs(self, tokens: Tokens, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], ...]:
        """Return the inputs of `text_tower` for some texts: ids and mask, int64 [rows, longest]."""
        is_left = self.tokenizer.padding_side == "left"
        return tokens.pad(rows, self.tokenizer.pad_token_id or 0, left=is_left)

    def text_tower(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Return the vectors [n, dim], not of unit length, of token ids and their mask, [n, length] each."""
        states = self.model(input_ids=ids, attention_mask=mask).last_hidden_state
        pooled = [pool(states, mask, pooling) for pooling in self.poolings]
        return self.layers(torch.cat(pooled, dim=1))


def pool(states: torch.Tensor, mask: torch.Tensor, pooling: str) -> torch.Tensor:
    """Pool token vectors into one vector per text, float32 [n, width], not of unit length.

    Args:
        states: token vectors [n, length, width].
        mask: [n, length], 1 for a token and 0 for padding, at either end. Each text has at least one token.
        pooling: a value of POOLINGS: "cls" takes the first token, "lasttoken" the last, "max" the maximum of each
            dimension, "mean" the mean, "mean_sqrt_len_tokens" the sum divided by the root of the number of tokens.

    Raises:
        ValueError: there is no such pooling.
    """
    states = states.float()  # a sum of hundreds of bfloat16 would lose digits
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
    """Return whether a directory has the layout of a sentence encoder: modules.json, or a pooling in 1_Pooling.

    False if the directory does not exist.
    """
    return (folder / "modules.json").is_file() or (folder / "1_Pooling/config.json").is_file()


def load_encoder(folder: Path, version: str, runtime: Runtime) -> SentenceEncoder:
    """Load a sentence encoder from its directory.

    If the checkpoint names a default prompt, it is put before every text.

    Args:
        folder: the directory, for which `is_sentence_encoder` is True.
        version: `name@fingerprint`, which becomes the encoder's version.
        runtime: where and how the model runs.

    Raises:
        InvalidInputError: a module, a pooling or a setting is not supported.
        CorruptDataError: configuration, weights or tokenizer are missing, unreadable, or do not fit each other.
    """
    modules = _read_modules(folder)
    if [kind for kind, _ in modules[:2]] != ["Transformer", "Pooling"]:
        raise InvalidInputError(
            f"{folder}: modules.json lists {[kind for kind, _ in modules]}; expected Transformer and Pooling first"
        )
    body = modules[0][1]
    poolings, includes_prompt = _read_poolings(modules[1][1])
    layers = [_read_dense_layer(part) for kind, part in modules[2:] if kind == "Dense"]
    unknown = [kind for kind, _ in modules[2:] if kind not in ("Dense", "Normalize")]
    if unknown:
        raise InvalidInputError(
            f"{folder}: the module {unknown[0]} of modules.json is not supported; Dense and Normalize are"
        )

    model = checkpoint_files.read_model(AutoModel, body, unused=("pooler.",))
    tokenizer = checkpoint_files.read_tokenizer(body, model.config.vocab_size)
    settings = _read_optional_json(body / "sentence_bert_config.json")
    prompts = _read_optional_json(folder / "config_sentence_transformers.json")
    prompt = (prompts.get("prompts") or {}).get(prompts.get("default_prompt_name") or "", "")
    if prompt and not includes_prompt:
        raise InvalidInputError(f"{folder}: its pooling leaves out the tokens of the prompt, which is not supported")
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
        runtime=runtime,
    )


def _read_modules(folder: Path) -> list[tuple[str, Path]]:
    """Return kind ("Transformer", "Pooling", "Dense", ...) and folder of each module, in order.

    Without modules.json: a transformer in `folder` itself, and its pooling.
    """
    if not (folder / "modules.json").is_file():
        return [("Transformer", folder), ("Pooling", folder / "1_Pooling")]
    entries = checkpoint_files.read_json(folder / "modules.json")
    return [(entry["type"].rsplit(".", 1)[-1], folder / entry["path"]) for entry in entries]


def _read_poolings(folder: Path) -> tuple[list[str], bool]:
    """Return the names of the poolings, and whether the tokens of the prompt are pooled too."""
    config = checkpoint_files.read_json(folder / "config.json")
    mode = config.get("pooling_mode")
    flags = [mode] if isinstance(mode, str) else mode or [flag for flag in config if config[flag] is True]
    names = [POOLINGS.get(name, name) for name in flags if name != "include_prompt"]
    unknown = sorted(set(names) - set(POOLINGS.values()))
    if unknown or not names:
        raise InvalidInputError(
            f"{folder}: pooling {unknown or 'none'} is not supported; expected one of {sorted(POOLINGS.values())}"
        )
    return names, config.get("include_prompt", True)


def _read_dense_layer(folder: Path) -> torch.nn.Module:
    """Return a linear layer and its activation, read from the folder of a Dense module.

    Raises:
        InvalidInputError: it is not stored as safetensors, has a residual, or its activation is not of torch.nn.
    """
    config = checkpoint_files.read_json(folder / "config.json")
    name = config.get("activation_function", "torch.nn.modules.activation.Tanh")
    activation = getattr(torch.nn, name.rsplit(".", 1)[-1], None)
    weights = folder / "model.safetensors"
    if not name.startswith("torch.nn.") or activation is None or config.get("use_residual") or not weights.is_file():
        raise InvalidInputError(
            f"{folder}: not a supported dense layer; expected safetensors, a torch.nn activation and no residual"
        )
    linear = torch.nn.Linear(config["in_features"], config["out_features"], bias=config.get("bias", True))
    linear.load_state_dict({key.removeprefix("linear."): value for key, value in load_file(weights).items()})
    return torch.nn.Sequential(linear, activation())


def _read_optional_json(file: Path) -> dict[str, Any]:
    """Return the content of a JSON file; empty if there is no such file."""
    return checkpoint_files.read_json(file) if file.is_file() else {}
