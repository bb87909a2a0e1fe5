"""How good predictions are, from NumPy arrays."""

import math

import numpy as np

CALIBRATION_BINS = 15
# Of logits; temperatures beyond fit nothing that was ever trained.
_LOWEST, _HIGHEST = 1e-3, 1e3
_ROWS_AT_ONCE = 4096


def wilson_interval(
    correct: int, total: int, z: float = 1.959963984540054
) -> tuple[float, float]:
    """Returns the Wilson score interval of a proportion, 95 % by default.

    Unlike mean +- 1.96 sigma it stays in [0, 1] and has a width at 0 and 1
    (Wilson 1927, J. Am. Stat. Assoc. 22, eq. for the score test).
    """
    if total < 1:
        raise ValueError("an interval needs at least one example.")
    p = correct / total
    centre = p + z * z / (2 * total)
    spread = z * math.sqrt(p * (1 - p) / total + z * z / (4 * total * total))
    scale = 1 + z * z / total
    return max(0.0, (centre - spread) / scale), min(
        1.0, (centre + spread) / scale
    )


def ratio(part: int, whole: int) -> float | None:
    """Returns part / whole; None without a whole."""
    return part / whole if whole else None


def average_precision(targets: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Returns the average precision of every class.

    The sum over thresholds of precision times gain in recall; examples with
    equal scores share a threshold, so that their order does not matter.

    Args:
        targets: (N, classes) booleans, which labels an example has.
        scores: (N, classes), larger for likelier.

    Returns:
        (classes,) float64 in [0, 1]; NaN for a class that no example has.
    """
    found = np.full(targets.shape[1], np.nan)
    for label in range(targets.shape[1]):
        order = np.argsort(-scores[:, label], kind="stable")
        sorted_scores = scores[order, label]
        hits = np.cumsum(targets[order, label])
        if not hits.size or not hits[-1]:
            continue
        # The last example of each run of equal scores.
        ends = np.append(np.flatnonzero(np.diff(sorted_scores)), len(hits) - 1)
        gained = np.diff(hits[ends], prepend=0)
        found[label] = (gained * hits[ends] / (ends + 1)).sum() / hits[-1]
    return found


def calibration(
    confidence: np.ndarray, correct: np.ndarray, bins: int = CALIBRATION_BINS
) -> tuple[float, list[dict]]:
    """Compares how sure a classifier is with how often it is right.

    Args:
        confidence: (N,) probability of the predicted class.
        correct: (N,) booleans.
        bins: of equal width over [0, 1], closed above.

    Returns:
        The expected calibration error: the mean over examples of the distance
        between their bin's accuracy and confidence (Guo et al.,
        arXiv 1706.04599); and a row per bin that has examples.
    """
    which = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    error, rows = 0.0, []
    for index in range(bins):
        own = which == index
        count = int(own.sum())
        if not count:
            continue
        sure = float(confidence[own].mean(dtype=np.float64))
        right = float(correct[own].mean(dtype=np.float64))
        error += count / len(confidence) * abs(sure - right)
        rows.append(
            {
                "low": index / bins,
                "high": (index + 1) / bins,
                "examples": count,
                "confidence": sure,
                "accuracy": right,
            }
        )
    return error, rows


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float | None:
    """Returns by what to divide logits for the least cross-entropy.

    Above 1 the classifier is too sure of itself (Guo et al., section 4.2).
    Fitted to the examples that it is then judged by, which with one number
    hardly matters.

    Args:
        logits: (N, classes).
        labels: (N,) true classes.

    Returns:
        The temperature; None where it would be zero or without bound, as when
        every example is right.
    """

    def slope(inverse: float) -> float:
        """Returns the derivative of the cross-entropy by 1 / temperature."""
        total = 0.0
        for begin in range(0, len(logits), _ROWS_AT_ONCE):
            z = logits[begin : begin + _ROWS_AT_ONCE].astype(np.float64)
            own = labels[begin : begin + _ROWS_AT_ONCE]
            weights = np.exp(inverse * (z - z.max(axis=1, keepdims=True)))
            weights /= weights.sum(axis=1, keepdims=True)
            total += (weights * z).sum()
            total -= z[np.arange(len(z)), own].sum()
        return total

    low, high = 1 / _HIGHEST, 1 / _LOWEST
    # The cross-entropy is convex in it: its slope rises.
    if slope(low) >= 0 or slope(high) <= 0:
        return None
    for _ in range(60):
        middle = math.sqrt(low * high)
        if slope(middle) < 0:
            low = middle
        else:
            high = middle
        if high / low < 1 + 1e-7:
            break
    return 1 / math.sqrt(low * high)


def cross_entropy(logits: np.ndarray, labels: np.ndarray) -> float:
    """Returns the mean cross-entropy, nats, of (N, classes) logits."""
    z = logits.astype(np.float64)
    z -= z.max(axis=1, keepdims=True)
    log_sums = np.log(np.exp(z).sum(axis=1))
    return float((log_sums - z[np.arange(len(z)), labels]).mean())


def softmax(logits: np.ndarray) -> np.ndarray:
    """Returns (N, classes) probabilities, float64."""
    z = logits.astype(np.float64)
    weights = np.exp(z - z.max(axis=1, keepdims=True))
    return weights / weights.sum(axis=1, keepdims=True)
