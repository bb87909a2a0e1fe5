"""What tf.keras of that time wrote is read as the network it is."""

import numpy as np
import pytest

from bit_tf import weights_file
from tests import published


@pytest.mark.parametrize("classes", [7, None])
def test_an_h5_of_tf_keras_is_read_by_order(classes, run_legacy, tmp_path):
    arrays = published.arrays("R26x0.5", classes)
    np.savez(tmp_path / "tensors.npz", **arrays)
    run_legacy(
        "h5_peer.py",
        tmp_path / "tensors.npz",
        tmp_path / "weights.h5",
        directory=tmp_path,
    )
    with weights_file.opened(tmp_path / "weights.h5") as stored:
        assert stored.architecture == "R26x0.5"
        assert stored.num_classes == classes
        for key, array in arrays.items():
            np.testing.assert_array_equal(stored.read(key), array)
