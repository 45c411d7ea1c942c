"""Completing and scoring lines with a language head that is not trained."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from producers.encoders.decoding import complete_lines, score_lines
from producers.encoders.training.cross_attention import CrossAttentionDecoder
from producers.encoders.training.language import LanguageHead

START, END, LENGTH = 0, 1, 30


@pytest.fixture(scope="module")
def head() -> LanguageHead:
    torch.manual_seed(0)
    decoder = CrossAttentionDecoder(vocabulary=12, length=LENGTH, image_width=8)
    return LanguageHead(decoder, start=START, end=END).eval()


@pytest.fixture(scope="module")
def image_tokens() -> torch.Tensor:
    torch.manual_seed(1)
    return torch.randn(16, 3, 8)


def draw(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).random((16, LENGTH), np.float32)


@pytest.mark.parametrize("uniforms", [None, draw(0)])
def test_a_line_repeats_no_pair_of_tokens_and_has_no_special_token(
    head: LanguageHead, image_tokens: torch.Tensor, uniforms: np.ndarray | None
) -> None:
    for line in complete_lines(head, image_tokens, [[]] * 16, unused=[2], uniforms=uniforms):
        pairs = list(pairwise(line))
        assert len(pairs) == len(set(pairs))
        assert not {START, END, 2} & set(line)
        assert len(line) < LENGTH


def test_a_completion_depends_on_its_own_image_prompt_and_random_numbers_only(
    head: LanguageHead, image_tokens: torch.Tensor
) -> None:
    prompts = [[3, 4, 5][: number % 4] for number in range(16)]
    together = complete_lines(head, image_tokens, prompts, uniforms=draw(2))
    for row in (0, 5, 15):
        alone = complete_lines(head, image_tokens[row : row + 1], [prompts[row]], uniforms=draw(2)[row : row + 1])
        assert alone == [together[row]]
    assert together != complete_lines(head, image_tokens, prompts, uniforms=draw(3))


def test_the_score_is_the_mean_log_probability_of_each_token_after_those_before(
    head: LanguageHead, image_tokens: torch.Tensor
) -> None:
    lines = [[3, 4, 5], [], [7] * 40]
    scores = score_lines(head, image_tokens[:3], lines)
    for row, line in enumerate(lines):
        tokens = [START, *line, END][: LENGTH + 1]
        expected = []
        for step in range(1, len(tokens)):
            seen = torch.tensor([tokens[:step]])
            with torch.inference_mode():
                hidden = head.reader(seen, torch.ones_like(seen), image_tokens[row : row + 1], causal=True)
                expected.append(float(head.compute_logits(hidden[0, -1]).log_softmax(0)[tokens[step]]))
        assert scores[row] == pytest.approx(np.mean(expected), abs=1e-4)
