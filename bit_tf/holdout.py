"""Images without an evaluation part: a fifth of them is held out."""

import hashlib

import numpy as np

from bit_tf import examples as examples_lib

FRACTION = 0.2


def hold_out(
    everything: examples_lib.Examples, split_seed: int
) -> tuple[examples_lib.Examples, examples_lib.Examples, list[str]]:
    """Splits off a fifth of every class, at least one image if it has two.

    Where images have several labels, or a number, it is a fifth of all.
    Images are ranked by a hash of their names: adding some moves few others.

    Args:
        everything: all images.
        split_seed: which fifth.

    Returns:
        Training examples, evaluation examples, and remarks for the log.

    Raises:
        ValueError: nothing would be left to evaluate on.
    """
    by_class = everything.labels.ndim == 1 and everything.labels.dtype.kind in (
        "i",
        "u",
    )
    if by_class:
        groups = [
            np.flatnonzero(everything.labels == label)
            for label in range(len(everything.class_names))
        ]
    else:
        groups = [np.arange(len(everything))]
    held = []
    single = []
    for label, members in enumerate(groups):
        ranked = sorted(
            members,
            key=lambda index: hashlib.sha256(
                f"{split_seed}/{everything.names[index]}".encode()
            ).digest(),
        )
        if len(members) == 1:
            single.append(label)
            continue
        held += ranked[: max(1, round(FRACTION * len(members)))]
    if not held:
        raise ValueError(
            "every class has one image, so that none is left to evaluate on: "
            "add images, or say which ones to evaluate on."
        )
    is_held = np.zeros(len(everything), bool)
    is_held[held] = True
    remarks = [
        f"no evaluation part: {len(held)} of {len(everything)} images are "
        f"held out, a fifth of {'every class' if by_class else 'all'} "
        f"(--split_seed={split_seed})"
    ]
    if single:
        remarks.append(
            f"{len(single)} classes have one image, which trains and is not "
            f"evaluated, {everything.class_names[single[0]]!r} first"
        )
    return (
        everything.subset(np.flatnonzero(~is_held)),
        everything.subset(np.flatnonzero(is_held)),
        remarks,
    )
