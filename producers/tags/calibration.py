"""Temperature scaling of probabilities (Guo et al. 2017, "On Calibration of Modern Neural Networks", ICML).

The temperature is one number, so a few hundred products are enough to fit it. It is fitted on products that were not
used for training. It never changes which label is the most probable.
"""

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

BOUNDS = (0.2, 20.0)
"""Bounds of the temperature. Without a lower bound, a classifier that is right on every calibration product would get
probabilities of 1."""


def fit_temperature(log_probabilities: np.ndarray, truth: np.ndarray) -> float:
    """Return the temperature that maximizes the likelihood of the true labels.

    Args:
        log_probabilities: of each product and label, float [n, labels]; -inf for a label that the classifier cannot
            predict.
        truth: int [n], the column of the true label, -1 if it has no column. Rows whose true label the classifier
            cannot predict are left out.

    Returns:
        A number in BOUNDS, above 1 if the classifier is overconfident; 1 if no row is left.
    """
    rows = np.flatnonzero(truth >= 0)
    rows = rows[np.isfinite(log_probabilities[rows, truth[rows]])]
    if not len(rows):
        return 1.0
    predicted, columns = log_probabilities[rows], truth[rows]

    def loss(log_temperature: float) -> float:
        scaled = log_softmax(predicted / np.exp(log_temperature), axis=1)
        return -float(scaled[np.arange(len(rows)), columns].mean())

    return float(np.exp(minimize_scalar(loss, bounds=tuple(np.log(BOUNDS)), method="bounded").x))


def apply_temperature(log_probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Return calibrated probabilities, float32 [n, labels]; each row sums to 1.

    Args:
        log_probabilities: of each product and label, float [n, labels]; -inf gives a probability of 0.
        temperature: positive, from `fit_temperature`. Above 1 it makes the probabilities of a row more equal, below 1
            less equal; 1 changes nothing.
    """
    return softmax(log_probabilities / temperature, axis=1).astype(np.float32)
