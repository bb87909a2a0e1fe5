"""A weights file is right in every tensor, or refused by the tensor's name."""

import time
import tracemalloc

import numpy as np
import pytest

from bit_tf import layout
from bit_tf import npz_file
from bit_tf import weights_file
from tests import published

NAME, CLASSES = "R26x0.5", 5
ARRAYS = published.arrays(NAME, CLASSES)
MEMBERS = {key: published.npy(array) for key, array in ARRAYS.items()}
MAX_SECONDS = 5
# Of headers; the file has 14 MB and its largest tensor 2 MB.
MAX_BYTES = 1_000_000
DTYPES = (np.int32, np.float64, np.float16, np.complex64, np.uint8, "S4")


def missing(key, members, number):
    del members[key]
    return key


def renamed(key, members, number):
    members[f"{key}_of_another"] = members.pop(key)
    return key


def transposed(key, members, number):
    array = ARRAYS[key]
    # A vector has nothing to swap; a column is what exporters make of it.
    turned = array[:, None] if array.ndim == 1 else array.T
    members[key] = published.npy(turned)
    return key


def of_another_dtype(key, members, number):
    dtype = DTYPES[number % len(DTYPES)]
    members[key] = published.npy(ARRAYS[key].astype(dtype))
    return key


def pickled(key, members, number):
    array = np.empty(2, object)
    array[:] = [print, {}]
    members[key] = published.npy(array)
    return key


def of_a_terabyte(key, members, number):
    # In the header of the array alone, which numpy would believe.
    members[key] = published.header((10**6, 250_000)) + b"\0" * 64
    return key


MUTATIONS = (
    missing,
    renamed,
    transposed,
    of_another_dtype,
    pickled,
    of_a_terabyte,
)


def refusal(path) -> str:
    """Returns the text with which a file is refused, in bounded memory."""
    tracemalloc.start()
    started = time.monotonic()
    try:
        with (
            pytest.raises(ValueError, match="tensor ") as caught,
            weights_file.opened(path),
        ):
            pass
        assert time.monotonic() - started < MAX_SECONDS
        assert tracemalloc.get_traced_memory()[1] < MAX_BYTES
    finally:
        tracemalloc.stop()
    return str(caught.value)


@pytest.mark.parametrize("mutate", MUTATIONS)
def test_every_wrong_tensor_is_named(mutate, tmp_path):
    path = tmp_path / "weights.npz"
    for number, key in enumerate(MEMBERS):
        members = dict(MEMBERS)
        name = mutate(key, members, number)
        published.write_npz(path, members)
        text = refusal(path)
        assert f"tensor {name} " in text, text
        assert str(path) in text


@pytest.mark.parametrize("share", np.linspace(0.02, 0.999, 15))
def test_a_truncated_file_is_named_with_the_tensor_it_ends_in(share, tmp_path):
    path = tmp_path / "weights.npz"
    np.savez(path, **ARRAYS)
    data = path.read_bytes()
    # The members end where their directory begins.
    end = data.index(b"PK\x01\x02")
    cut = int(share * end)
    path.write_bytes(data[:cut])
    text = refusal(path)
    # Within or just after the tensor before the cut, by an independent look.
    begun = data.rindex(b"PK\x03\x04", 0, cut)
    inside = data[begun + 30 :].split(b".npy", 1)[0].decode()
    assert inside in text
    assert "incomplete" in text


def test_a_file_cut_in_its_directory_is_incomplete(tmp_path):
    path = tmp_path / "weights.npz"
    np.savez(path, **ARRAYS)
    path.write_bytes(path.read_bytes()[:-30])
    assert "ends after tensor resnet/head/conv2d/bias" in refusal(path)


def test_wrong_shapes_are_told_with_both(tmp_path):
    key = "resnet/block2/unit01/a/proj/standardized_conv2d/kernel"
    members = MEMBERS | {key: published.npy(ARRAYS[key].swapaxes(2, 3))}
    published.write_npz(tmp_path / "w.npz", members)
    text = refusal(tmp_path / "w.npz")
    assert "(1, 1, 256, 128)" in text and "(1, 1, 128, 256)" in text


def test_a_surplus_tensor_is_named(tmp_path):
    members = MEMBERS | {
        "resnet/block9/kernel": published.npy(np.zeros(3, "f4"))
    }
    published.write_npz(tmp_path / "w.npz", members)
    assert "tensor resnet/block9/kernel of shape (3,)" in refusal(
        tmp_path / "w.npz"
    )


def test_a_tensor_under_two_names_is_refused(tmp_path):
    key = "resnet/block1/unit01/b/standardized_conv2d/kernel"
    odd = key.replace("conv2d", "conv2d_3")
    published.write_npz(tmp_path / "w.npz", MEMBERS | {odd: MEMBERS[key]})
    assert key in refusal(tmp_path / "w.npz")


def test_a_bomb_of_zeros_is_refused(tmp_path):
    key = layout.HEAD_KERNEL
    members = MEMBERS | {
        key: published.npy(np.zeros((1, 1, 1024, 100_000), np.float32)),
        layout.HEAD_BIAS: published.npy(np.zeros(100_000, np.float32)),
    }
    published.write_npz(tmp_path / "w.npz", members, packed=True)
    assert f"tensor {key} brings what" in refusal(tmp_path / "w.npz")


@pytest.mark.parametrize(
    "text",
    [
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (2,)",
        b"{'descr': __import__('os'), 'fortran_order': False, 'shape': (2,)}",
        b"(" * 5000,
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (-2,)}",
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (2.5,)}",
        b"{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (2,)}",
        b"{'descr': '<f4', 'shape': (2,)}",
        b"\xff" * 80,
        b"",
    ],
)
def test_a_header_that_is_none_is_refused(text, tmp_path):
    key = "resnet/group_norm/gamma"
    start = b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text
    published.write_npz(tmp_path / "w.npz", MEMBERS | {key: start + b"\0" * 8})
    assert f"tensor {key} " in refusal(tmp_path / "w.npz")


def test_a_header_of_gigabytes_is_not_read(tmp_path):
    key = "resnet/group_norm/gamma"
    start = b"\x93NUMPY\x02\x00" + (2**31).to_bytes(4, "little")
    start += b" " * 3_000_000
    published.write_npz(tmp_path / "w.npz", MEMBERS | {key: start})
    assert f"tensor {key} has no numpy header" in refusal(tmp_path / "w.npz")


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["<f2", "<f4", "<f8", ">f4"])
def test_arrays_are_read_as_numpy_reads_them(packed, order, dtype, tmp_path):
    rng = np.random.default_rng(0)
    arrays = {
        "a": rng.normal(size=(3, 4, 5, 6)).astype(dtype, order=order),
        "b": rng.normal(size=(7,)).astype(dtype),
        "c": np.array(3, dtype),
    }
    (np.savez_compressed if packed else np.savez)(tmp_path / "x.npz", **arrays)
    with npz_file.NpzFile(tmp_path / "x.npz") as found:
        assert list(found.specs) == list(arrays)
        for name, array in arrays.items():
            np.testing.assert_array_equal(found.read(name), array)
            assert found.specs[name].shape == array.shape


def test_what_we_write_numpy_reads(tmp_path):
    npz_file.write(tmp_path / "x.npz", ARRAYS, ARRAYS.__getitem__)
    with np.load(tmp_path / "x.npz", allow_pickle=False) as stored:
        assert stored.files == list(ARRAYS)
        for key, array in ARRAYS.items():
            np.testing.assert_array_equal(stored[key], array)


def test_a_flipped_bit_is_found_when_the_tensor_is_read(tmp_path):
    path = tmp_path / "w.npz"
    np.savez(path, **ARRAYS)
    data = bytearray(path.read_bytes())
    rng = np.random.default_rng(0)
    end = data.index(b"PK\x01\x02")
    for _ in range(20):
        at, bit = int(rng.integers(end)), 1 << int(rng.integers(8))
        data[at] ^= bit
        path.write_bytes(data)
        data[at] ^= bit
        try:
            with weights_file.opened(path) as stored:
                found = {key: stored.read(key) for key in ARRAYS}
        except ValueError:
            continue
        # A bit that nobody reads, such as a date: nothing may have changed.
        for key, array in ARRAYS.items():
            np.testing.assert_array_equal(found[key], array)
