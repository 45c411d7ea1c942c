"""A figure with its 95% interval, from bootstrap replicates."""

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Estimate:
    """A metric with its 95% bootstrap interval over groups of products.

    The interval is the percentile interval (Efron and Tibshirani 1993, An Introduction to the Bootstrap, chapter 13).
    """

    value: float
    """The metric of all products; NaN if undefined."""
    ci95: tuple[float, float]
    """Lower and upper bound; NaN if the value is undefined, or undefined in every replicate. Replicates in which it is
    undefined do not count."""


def make_estimate(values: np.ndarray) -> Estimate:
    """Return the estimate of a metric.

    Args:
        values: float [1 + replicates]: first the value, then the bootstrap replicates. Replicates that are NaN are left
            out.
    """
    replicates = values[1:][np.isfinite(values[1:])]
    if not len(replicates) or math.isnan(values[0]):
        return Estimate(float(values[0]), (math.nan, math.nan))
    low, high = np.quantile(replicates, [0.025, 0.975])
    return Estimate(float(values[0]), (float(low), float(high)))


def estimate_bias_corrected(values: np.ndarray) -> Estimate:
    """Return the estimate of a metric whose bootstrap replicates are biased upwards, such as the calibration error.

    The interval is the percentile interval minus the bootstrap estimate of the bias, which is the mean of the
    replicates minus the value (Efron and Tibshirani 1993, chapter 10), and not below 0. The uncorrected interval can
    exclude the value. The correction is applied once; a second one, for the bias of the value itself, would miss the
    true error of nearly calibrated probabilities.

    Args:
        values: float [1 + replicates]: first the value, then the bootstrap replicates. Replicates that are NaN are left
            out.

    Returns:
        The value, unchanged, with its corrected interval; the interval is NaN if the value or all replicates are.
    """
    uncorrected = make_estimate(values)
    if math.isnan(uncorrected.ci95[0]):
        return uncorrected
    bias = float(np.nanmean(values[1:])) - uncorrected.value
    return Estimate(uncorrected.value, (max(uncorrected.ci95[0] - bias, 0.0), uncorrected.ci95[1] - bias))
