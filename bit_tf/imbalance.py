"""Classes of unequal size: how much each one's examples weigh."""

import numpy as np

# How soon further examples of a class say nothing new (Cui et al.,
# arXiv 1901.05555, who try 0.9 to 0.9999).
BETA = 0.999


def weights(kind: str, counts: np.ndarray) -> np.ndarray | None:
    """Returns by what the loss of each class is multiplied.

    The mean over the labels given is 1, so that the learning rate keeps its
    meaning.

    Args:
        kind: "none"; "balanced": by the inverse of the number of examples;
            "effective": by that of the effective number, (1 - BETA^n) /
            (1 - BETA), which grows more slowly.
        counts: (classes,) examples of each class.

    Returns:
        (classes,) float64, zero for classes without examples; None for
        "none".
    """
    if kind == "none":
        return None
    counts = np.asarray(counts, np.float64)
    effective = counts
    if kind == "effective":
        effective = (1 - BETA**counts) / (1 - BETA)
    raw = np.where(counts > 0, 1 / np.maximum(effective, 1e-12), 0.0)
    return raw * counts.sum() / (raw * counts).sum()
