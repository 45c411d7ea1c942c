"""Run n rows through a model: order, unit length, missing vectors, and running out of memory."""

import logging

import numpy as np
import pytest
import torch

from producers.encoders.batches import BatchRunner


def test_a_batch_that_does_not_fit_is_halved_and_tried_again_and_that_is_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    sizes: list[int] = []

    def encode(rows: np.ndarray) -> torch.Tensor:
        sizes.append(len(rows))
        if len(rows) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return torch.from_numpy(rows)

    rows = np.random.default_rng(0).normal(size=(11, 4)).astype(np.float32)
    with caplog.at_level(logging.WARNING):
        actual = BatchRunner(8).run(encode, rows)
    np.testing.assert_allclose(actual, rows / np.linalg.norm(rows, axis=1, keepdims=True), rtol=1e-6)
    assert sizes == [8, 4, 2, 2, 2, 2, 2, 1]
    assert len(caplog.records) == 1


def test_the_cpu_allocators_error_counts_as_out_of_memory() -> None:
    def encode(rows: list[int]) -> torch.Tensor:
        if len(rows) > 1:
            torch.empty(2**60, dtype=torch.uint8)
        return torch.ones(len(rows), 2)

    assert BatchRunner(4).run(encode, [1, 2, 3, 4]).shape == (4, 2)


def test_one_item_that_does_not_fit_is_an_error() -> None:
    def encode(rows: list[int]) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        BatchRunner(4).run(encode, [1, 2])


def test_any_other_error_is_raised_and_not_retried() -> None:
    def encode(rows: list[int]) -> torch.Tensor:
        raise RuntimeError("shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="multiplied"):
        BatchRunner(4).run(encode, [1, 2])


@pytest.mark.parametrize("bad", [[0.0, 0.0], [np.nan, 1.0], [np.inf, 1.0]])
def test_a_row_that_cannot_be_scaled_is_nan_and_other_rows_are_not_affected(bad: list[float]) -> None:
    actual = BatchRunner(8).run(lambda rows: torch.tensor(rows), [[3.0, 4.0], bad])
    np.testing.assert_allclose(actual[0], [0.6, 0.8], rtol=1e-6)
    assert np.isnan(actual[1]).all()


def test_several_threads_give_the_rows_of_one_in_order_and_log_out_of_memory_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def encode(rows: np.ndarray) -> torch.Tensor:
        if len(rows) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return torch.from_numpy(rows)

    rows = np.random.default_rng(0).normal(size=(103, 4)).astype(np.float32)
    with caplog.at_level(logging.WARNING):
        actual = BatchRunner(8, threads=3).run(encode, rows)
    np.testing.assert_allclose(actual, rows / np.linalg.norm(rows, axis=1, keepdims=True), rtol=1e-6)
    assert len(caplog.records) == 1
