"""How far two outputs of the same network are apart."""

import numpy as np

# Of the largest value. Rounding in float32 is some 1e-5 after fifty layers;
# which 1e-5 depends on the processor and on the kernels chosen for it.
ROUNDING = 1e-4


def relative_error(found, wanted) -> float:
    """Returns the largest difference over the largest wanted value.

    Element by element a relative error means nothing here: a logit may be
    close to zero, and its rounding is that of the large sums behind it.
    """
    found, wanted = np.asarray(found), np.asarray(wanted)
    assert found.shape == wanted.shape
    return float(np.abs(found - wanted).max() / np.abs(wanted).max())
