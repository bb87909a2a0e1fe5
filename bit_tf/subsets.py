"""Class-balanced few-shot subsets, the same on every machine."""

import hashlib
from collections.abc import Sequence

import numpy as np

# Of examples per class, where it is no number.
ALL = "all"


def sample(
    labels: np.ndarray,
    *,
    class_names: Sequence[str],
    examples_per_class: int,
    seed: int,
    allow_missing: bool = False,
) -> np.ndarray:
    """Draws `examples_per_class` examples of every class without replacement.

    Examples are ranked by SHA-256 of "seed/class/position within the class",
    so the draw depends on nothing but its arguments: no generator whose
    stream may change between versions. A smaller draw with the same seed is
    part of a larger one.

    Args:
        labels: (N,) integers in [0, classes).
        class_names: one name per class.
        examples_per_class: K, at least 1.
        seed: which subset; the paper takes the median over 5.
        allow_missing: take all of a class that has fewer than K examples
            instead of raising.

    Returns:
        (at most K * classes,) sorted indices into `labels`.

    Raises:
        ValueError: K below 1, or a class with fewer than K examples.
    """
    if examples_per_class < 1:
        raise ValueError(
            f"examples_per_class={examples_per_class} is not possible: "
            "allowed is a whole number >= 1."
        )
    chosen = []
    short = []
    for label, name in enumerate(class_names):
        members = np.flatnonzero(np.asarray(labels) == label)
        if len(members) < examples_per_class:
            short.append(f"{name} ({len(members)})")
        ranked = sorted(
            range(len(members)),
            key=lambda position: hashlib.sha256(
                f"{seed}/{label}/{position}".encode()
            ).digest(),
        )
        chosen.extend(members[ranked[:examples_per_class]])
    if short and not allow_missing:
        shown = ", ".join(short[:5]) + (", ..." if len(short) > 5 else "")
        raise ValueError(
            f"{len(short)} of {len(class_names)} classes have fewer than "
            f"examples_per_class={examples_per_class} images: {shown}. Take "
            "fewer per class, or allow it with --fewshot_allow_missing."
        )
    return np.sort(np.asarray(chosen, dtype=np.int64))
