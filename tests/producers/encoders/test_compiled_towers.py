"""What a GPU wants, as far as a CPU can tell: the ways tried in order, and batches filled to their shape."""

import logging

import numpy as np
import pytest
import torch

from producers.encoders.cuda_graphs import Captured, filled


def test_what_cannot_be_compiled_or_captured_runs_all_the_same_and_that_is_said(
    caplog: pytest.LogCaptureFixture,
) -> None:
    if torch.cuda.is_available():
        pytest.skip("here it can")
    tower = Captured(lambda rows: rows * 2)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert tower(torch.ones(2)).tolist() == [2, 2]
    assert [record.getMessage().split(":")[0] for record in caplog.records] == [
        "the model runs not compiled and captured but captured",
        "the model runs not captured but eager",
    ]


def test_an_error_of_the_model_itself_is_not_hidden() -> None:
    def broken(rows: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="multiplied"):
        Captured(broken)(torch.ones(2))


def test_a_short_batch_is_filled_with_its_last_row() -> None:
    assert filled(np.array([[1], [2]]), 4).tolist() == [[1], [2], [2], [2]]
    assert filled(np.array([[1], [2]]), 2).tolist() == [[1], [2]]
