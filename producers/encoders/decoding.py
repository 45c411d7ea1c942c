"""Write lines with a language head: complete prompts token by token, and score lines that are written."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from producers.encoders.training.language import LanguageHead

Tokens = Sequence[int]
"""Token ids of a line, without the tokens that begin and end it."""


@torch.inference_mode()
def complete_lines(
    head: LanguageHead,
    image_tokens: torch.Tensor,
    prompts: Sequence[Tokens],
    *,
    unused: Sequence[int] = (),
    temperature: float = 1.0,
    uniforms: NDArray[np.float32] | None = None,
) -> list[list[int]]:
    """Continue the prompt of each image until the head ends the line.

    A token is not chosen if it would repeat a pair of consecutive tokens, so that a line does not loop. A line has
    fewer tokens than the decoder's `length`; a longer one is cut.

    Args:
        head: the language head.
        image_tokens: tokens of n images, float [n, image tokens, width].
        prompts: the tokens with which each of n lines begins; may be empty.
        unused: ids of tokens that are never chosen, such as the padding.
        temperature: divides the logits; above 0. A lower one keeps closer to the most probable line.
        uniforms: random numbers in [0, 1) that choose the tokens, [n, `length`]. None chooses the most probable token
            each time.

    Returns:
        The tokens of each line after its prompt, in the order of the images.
    """
    device, limit = image_tokens.device, head.reader.settings["length"] - 1
    prompts = [list(prompt)[:limit] for prompt in prompts]
    given = torch.full((len(prompts), limit), -1)
    for row, prompt in enumerate(prompts):
        given[row, : len(prompt)] = torch.tensor(prompt, dtype=torch.long)
    given = given.to(device)
    lines = torch.cat([torch.full_like(given[:, :1], head.start), torch.full_like(given, head.end)], dim=1)
    blocked = torch.zeros(head.reader.settings["vocabulary"], dtype=torch.bool, device=device)
    blocked[[head.start, *(token for token in unused if token != head.end)]] = True
    shared = min(map(len, prompts), default=0)
    lines[:, 1 : shared + 1] = given[:, :shared]
    open_rows = torch.arange(len(prompts), device=device)
    for step in range(shared, limit):
        line = lines[open_rows, : step + 1]
        hidden = head.reader(line, torch.ones_like(line), image_tokens[open_rows], causal=True)
        logits = head.compute_logits(hidden[:, -1])
        logits[:, blocked] = -torch.inf
        logits.scatter_(1, torch.where(line[:, :-1] == line[:, -1:], line[:, 1:], head.start), -torch.inf)
        if uniforms is None:
            chosen = logits.argmax(dim=1)
        else:
            shares = torch.softmax(logits / temperature, dim=1).cumsum(dim=1)
            uniform = torch.from_numpy(uniforms[:, step : step + 1]).to(shares)[open_rows]
            chosen = torch.searchsorted(shares, uniform * shares[:, -1:], right=True)[:, 0].clamp(max=len(blocked) - 1)
        prompted = given[open_rows, step]
        token = torch.where(prompted >= 0, prompted, chosen)
        lines[open_rows, step + 1] = token
        open_rows = open_rows[(token != head.end) | (prompted >= 0)]
        if not len(open_rows):
            break
    rows = [row[len(prompt) :] for row, prompt in zip(lines[:, 1:].tolist(), prompts, strict=True)]
    return [row[: row.index(head.end)] if head.end in row else row for row in rows]


@torch.inference_mode()
def score_lines(head: LanguageHead, image_tokens: torch.Tensor, lines: Sequence[Tokens]) -> NDArray[np.float32]:
    """Return the mean log probability of the tokens of each line, float32 [n]; the end of the line is one of them.

    Args:
        head: the language head.
        image_tokens: tokens of n images, float [n, image tokens, width].
        lines: the tokens of n lines. What exceeds the decoder's `length` is not scored.
    """
    limit = head.reader.settings["length"]
    rows = [[head.start, *line, head.end][: limit + 1] for line in lines]
    width = max(map(len, rows))
    tokens = torch.full((len(rows), width), head.end, dtype=torch.long)
    mask = torch.zeros((len(rows), width), dtype=torch.long)
    for number, row in enumerate(rows):
        tokens[number, : len(row)] = torch.tensor(row)
        mask[number, : len(row)] = 1
    tokens, mask = tokens.to(image_tokens.device), mask.to(image_tokens.device)
    hidden = head.reader(tokens[:, :-1], mask[:, :-1], image_tokens, causal=True)
    scores = head.compute_logits(hidden).log_softmax(dim=-1).gather(2, tokens[:, 1:, None])[..., 0]
    result: NDArray[np.float32] = ((scores * mask[:, 1:]).sum(dim=1) / mask[:, 1:].sum(dim=1)).cpu().numpy()
    return result
