"""The released .h5 files: by order, within themselves, and the two bad ones."""

import h5py
import numpy as np
import pytest

from bit_tf import architecture
from bit_tf import h5_weights
from bit_tf import layout
from bit_tf import tensors
from bit_tf import weights_file
from tests import published

ARRAYS = published.arrays("R26x0.5", 5)
KEY = "resnet/block2/unit01/a/proj/standardized_conv2d/kernel"


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "weights.h5"
    published.write_h5(path, ARRAYS)
    return path


def place(path, key=KEY) -> str:
    """Returns where the file has a tensor."""
    layer = key.split("/")[1]
    keys = [k for k in ARRAYS if k.split("/")[1] == layer]
    return f"{layer}/some_resnet/{layer}/weight_{keys.index(key)}:0"


def refusal(path, expected=None) -> str:
    with (
        pytest.raises(ValueError) as caught,
        weights_file.opened(path, expected=expected),
    ):
        pass
    return str(caught.value)


def test_tensors_are_known_by_their_order(file):
    with weights_file.opened(file) as stored:
        assert (stored.architecture, stored.num_classes) == ("R26x0.5", 5)
        for key, array in ARRAYS.items():
            np.testing.assert_array_equal(stored.read(key), array)


def test_equal_shapes_are_not_confused(file):
    # c and proj of block 1 have one shape; only the order tells them apart.
    c = "resnet/block1/unit01/c/standardized_conv2d/kernel"
    proj = "resnet/block1/unit01/a/proj/standardized_conv2d/kernel"
    assert ARRAYS[c].shape == ARRAYS[proj].shape
    with weights_file.opened(file) as stored:
        assert (stored.read(c) == ARRAYS[c]).all()
        assert (stored.read(proj) == ARRAYS[proj]).all()


def test_long_lists_of_names_are_put_together(file):
    with h5py.File(file, "a") as h5:
        names = h5["block3"].attrs["weight_names"]
        del h5["block3"].attrs["weight_names"]
        h5["block3"].attrs["weight_names0"] = names[:7]
        h5["block3"].attrs["weight_names1"] = names[7:]
    with weights_file.opened(file) as stored:
        assert stored.num_classes == 5


class Shapes:
    """An opened file of before Keras 3, without its gigabytes."""

    is_legacy = True

    def __init__(self, shapes):
        self.specs = {
            str(number): tensors.Spec(shape, np.dtype("f4"))
            for number, shape in enumerate(shapes)
        }


@pytest.mark.parametrize(
    ("name", "root"), [("R50x3", (7, 7, 3, 64)), ("R101x1", (7, 7, 3, 256))]
)
@pytest.mark.parametrize("letter", ["S", "M"])
def test_a_wrong_root_in_the_mislabelled_files_is_explained(name, root, letter):
    depth, width = architecture.parse_name(name)
    shapes = layout.shapes(depth, width, 1000)
    h5_weights.read(Shapes(shapes.values()), said=f"BiT-{letter}-{name}")
    shapes[layout.ROOT] = root
    with pytest.raises(ValueError, match=f"issue 47.*BiT-S-{name}.npz") as e:
        h5_weights.read(Shapes(shapes.values()), said="weights")
    assert str(root) in str(e.value) and layout.ROOT in str(e.value)


def test_another_network_in_a_mislabelled_file_is_explained(tmp_path):
    path = tmp_path / "BiT-S-R50x3.h5"
    published.write_h5(path, published.arrays("R50x1", 10))
    assert "issue 47" in refusal(path)
    path = path.rename(tmp_path / "BiT-S-R50x1.h5")
    assert "issue 47" in refusal(path, expected="R50x3")
    with weights_file.opened(path, expected="R50x1") as stored:
        assert stored.num_classes == 10


def test_a_file_of_another_width_is_refused_as_such(file):
    text = refusal(file, expected="R26x1")
    assert "it is of R26x0.5, and R26x1 is wanted" in text
    assert "(7, 7, 3, 32)" in text and "(7, 7, 3, 64)" in text


def test_links_out_of_the_file_are_not_followed(file, tmp_path):
    with h5py.File(tmp_path / "secret.h5", "w") as other:
        other["secret"] = ARRAYS[KEY]
    for link in (
        h5py.ExternalLink(str(tmp_path / "secret.h5"), "secret"),
        h5py.SoftLink("/block1"),
    ):
        with h5py.File(file, "a") as h5:
            del h5[place(file)]
            h5[place(file)] = link
        text = refusal(file)
        assert place(file) in text and "links are not followed" in text


def test_tensors_in_other_files_are_not_read(file, tmp_path):
    raw = tmp_path / "secret.bin"
    raw.write_bytes(ARRAYS[KEY].tobytes())
    layout_of = h5py.VirtualLayout(ARRAYS[KEY].shape, np.float32)
    with h5py.File(tmp_path / "secret.h5", "w") as other:
        other["secret"] = ARRAYS[KEY]
        layout_of[:] = h5py.VirtualSource(other["secret"])
    for create in (
        lambda h5: h5.create_dataset(
            place(file),
            ARRAYS[KEY].shape,
            np.float32,
            external=[(str(raw), 0, raw.stat().st_size)],
        ),
        lambda h5: h5.create_virtual_dataset(place(file), layout_of),
    ):
        with h5py.File(file, "a") as h5:
            del h5[place(file)]
            create(h5)
        assert "lies in another file" in refusal(file)


def test_a_tensor_that_claims_a_terabyte_is_refused(file):
    with h5py.File(file, "a") as h5:
        del h5[place(file)]
        # Chunks that were never written take no room.
        h5.create_dataset(
            place(file), (10**6, 250_000), np.float32, chunks=(1000, 1000)
        )
    text = refusal(file)
    assert place(file) in text and "1,000,000,000,000 bytes" in text


@pytest.mark.parametrize("dtype", [np.int32, "S4"])
def test_other_dtypes_are_refused(file, dtype):
    with h5py.File(file, "a") as h5:
        del h5[place(file)]
        h5[place(file)] = ARRAYS[KEY].astype(dtype)
    assert f"tensor {place(file)} is " in refusal(file)


def test_a_tensor_that_is_listed_and_not_there_is_named(file):
    with h5py.File(file, "a") as h5:
        del h5[place(file)]
    assert f"{place(file)} is listed and not there" in refusal(file)


def test_a_missing_tensor_shows_in_the_count(file):
    with h5py.File(file, "a") as h5:
        names = h5["block2"].attrs["weight_names"]
        h5["block2"].attrs["weight_names"] = names[:-1]
    assert f"it holds {len(ARRAYS) - 1} tensors" in refusal(file)


def test_a_wrong_shape_is_named_with_both(file):
    with h5py.File(file, "a") as h5:
        del h5[place(file)]
        h5[place(file)] = ARRAYS[KEY].swapaxes(2, 3)
    text = refusal(file)
    assert f"{KEY} (in the file {place(file)})" in text
    assert "(1, 1, 256, 128)" in text and "(1, 1, 128, 256)" in text


@pytest.mark.parametrize("share", [0.001, 0.3, 0.9])
def test_a_truncated_file_is_refused(file, share):
    data = file.read_bytes()
    file.write_bytes(data[: int(share * len(data))])
    assert "cannot be read as .h5" in refusal(file)
