"""Probabilities that mean what they say: temperature scaling (Guo et al., "On Calibration of Modern Neural Networks",
ICML 2017). One number, fitted on products that trained nothing, so that a few hundred of them suffice; it never changes
which label is the most probable one.
"""

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

BOUNDS = (0.2, 20.0)
"""Of the temperature. Without a lower bound a classifier that is right on every calibration product would be made
certain of everything."""


def fit_temperature(log_probabilities: np.ndarray, truth: np.ndarray) -> float:
    """The temperature that makes the truth most likely.

    Args:
        log_probabilities: float [n, labels]; a label that the classifier cannot give has -inf.
        truth: int [n], the column of the true label, -1 if it has none; rows whose truth the classifier cannot give
            say nothing of its confidence and are left out.

    Returns:
        Above 1 where the classifier is too sure of itself; 1 if no row is left to fit it on.
    """
    rows = np.flatnonzero(truth >= 0)
    rows = rows[np.isfinite(log_probabilities[rows, truth[rows]])]
    if not len(rows):
        return 1.0
    known, columns = log_probabilities[rows], truth[rows]

    def loss(log_temperature: float) -> float:
        scaled = log_softmax(known / np.exp(log_temperature), axis=1)
        return -float(scaled[np.arange(len(rows)), columns].mean())

    return float(np.exp(minimize_scalar(loss, bounds=tuple(np.log(BOUNDS)), method="bounded").x))


def apply_temperature(log_probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Calibrated probabilities, float32 [n, labels]; rows add up to 1."""
    return softmax(log_probabilities / temperature, axis=1).astype(np.float32)
