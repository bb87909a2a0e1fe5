"""Classifiers on fixed features that need seconds: linear, and neighbours."""

import numpy as np

# Strength of the ridge, and the constant feature that stands for the bias, as
# big_vision's few-shot evaluator has them.
RIDGE = 2.0**10
BIAS = 100.0
NEIGHBOURS = 10
_EPSILON = 1e-6
_ROWS_AT_ONCE = 1024


def linear(
    features: np.ndarray,
    labels: np.ndarray,
    queries: np.ndarray,
    *,
    num_classes: int,
    ridge: float = RIDGE,
) -> np.ndarray:
    """Returns scores of a linear classifier, in closed form.

    Ridge regression of +1 and -1 per class on features that are standardised
    by the training examples, with a constant feature beside them.

    Args:
        features: (N, D) of the training examples.
        labels: (N,) their classes.
        queries: (M, D).
        num_classes: how many there are.
        ridge: lambda of ||x w - y||^2 + lambda ||w||^2.

    Returns:
        (M, classes) float64.
    """
    mean = features.mean(axis=0, dtype=np.float64)
    scale = features.std(axis=0, dtype=np.float64) + _EPSILON

    def standardised(values):
        values = (values - mean) / scale
        return np.hstack([values, np.full((len(values), 1), BIAS)])

    x = standardised(features)
    y = 2.0 * (labels[:, None] == np.arange(num_classes)) - 1.0
    # Whichever of the two systems of equations is the smaller.
    if x.shape[0] < x.shape[1]:
        gram = x @ x.T
        gram[np.diag_indices_from(gram)] += ridge
        weights = x.T @ np.linalg.solve(gram, y)
    else:
        gram = x.T @ x
        gram[np.diag_indices_from(gram)] += ridge
        weights = np.linalg.solve(gram, x.T @ y)
    return np.vstack(
        [
            standardised(queries[begin : begin + _ROWS_AT_ONCE]) @ weights
            for begin in range(0, len(queries), _ROWS_AT_ONCE)
        ]
    )


def neighbours(
    features: np.ndarray,
    labels: np.ndarray,
    queries: np.ndarray,
    *,
    num_classes: int,
    count: int = NEIGHBOURS,
) -> np.ndarray:
    """Returns the votes of the nearest training examples.

    Nearest by the cosine of features from which the training mean is taken.
    Among classes with as many votes the one with the larger sum of cosines
    wins.

    Args:
        features: (N, D) of the training examples.
        labels: (N,) their classes.
        queries: (M, D).
        num_classes: how many there are.
        count: how many neighbours vote; all there are if they are fewer.

    Returns:
        (M, classes) float64.
    """
    mean = features.mean(axis=0, dtype=np.float64)

    def directions(values):
        values = values - mean
        norms = np.linalg.norm(values, axis=1, keepdims=True)
        return values / np.maximum(norms, _EPSILON)

    known = directions(features)
    count = min(count, len(known))
    found = np.zeros((len(queries), num_classes))
    for begin in range(0, len(queries), _ROWS_AT_ONCE):
        cosines = directions(queries[begin : begin + _ROWS_AT_ONCE]) @ known.T
        nearest = np.argpartition(-cosines, count - 1, axis=1)[:, :count]
        rows = begin + np.arange(len(cosines))[:, None]
        closeness = np.take_along_axis(cosines, nearest, axis=1)
        # Cosines are at most 1: `count` of them count less than a vote.
        votes = 1 + closeness / (2 * count)
        np.add.at(found, (rows, labels[nearest]), votes)
    return found
