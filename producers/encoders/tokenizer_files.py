"""Tokenizers of transformers as files of the library `tokenizers`, which readers of an export open."""

import json
import string
from typing import Any

from tokenizers import Regex, normalizers, processors

from feature_repo.errors import InvalidInputError

PUNCTUATION = Regex("[" + "".join(f"\\{character}" for character in string.punctuation) + "]")
"""Characters that SigLIP's tokenizer removes."""


def render_tokenizer(tokenizer: Any, length: int | None) -> str:
    """Return a tokenizer as the text of a tokenizer.json without padding.

    Args:
        tokenizer: of transformers. One that is written in Python, such as SigLIP's, is converted.
        length: most tokens of a text; None does not truncate.

    Raises:
        InvalidInputError: transformers cannot convert a tokenizer of this class.
    """
    core = getattr(tokenizer, "backend_tokenizer", None)
    if core is None:
        core = _convert_tokenizer(tokenizer)
    content = json.loads(core.to_str())  # a copy, so that the encoder's own settings stay
    content["padding"] = content["truncation"] = None
    if length is not None:
        content["truncation"] = {
            "direction": tokenizer.truncation_side.capitalize(),
            "max_length": length,
            "strategy": "LongestFirst",
            "stride": 0,
        }
    return json.dumps(content, ensure_ascii=False)


def _convert_tokenizer(tokenizer: Any) -> Any:
    """Return a tokenizer that is written in Python as one of the library `tokenizers`."""
    from transformers import SiglipTokenizer
    from transformers.convert_slow_tokenizer import SpmConverter, convert_slow_tokenizer

    try:
        if not isinstance(tokenizer, SiglipTokenizer):
            return convert_slow_tokenizer(tokenizer)
        core = SpmConverter(tokenizer).converted()
    except Exception as error:  # it raises what the conversion of a class happens to raise
        message = " ".join(str(error).split())[:120]
        raise InvalidInputError(
            f"the tokenizer {type(tokenizer).__name__} is written in Python and cannot be converted to a file "
            f"({message}); save the checkpoint with a fast tokenizer (tokenizer.json)"
        ) from error
    end = tokenizer.eos_token
    core.post_processor = processors.TemplateProcessing(
        single=["$A", end], special_tokens=[(end, tokenizer.eos_token_id)]
    )
    # transformers knows no conversion of this class; its `canonicalize_text` does this before SentencePiece.
    steps: list[Any] = [normalizers.Lowercase()] if tokenizer.do_lower_case else []
    steps += [normalizers.Replace(PUNCTUATION, ""), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip()]
    core.normalizer = normalizers.Sequence([*steps, *([core.normalizer] if core.normalizer else [])])
    return core
