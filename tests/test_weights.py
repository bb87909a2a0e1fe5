"""Weights go out in every format and come back as they were."""

import json
import subprocess
import sys

import keras
import numpy as np
import pytest
import safetensors.numpy
import tensorflow as tf

from bit_tf import layout
from bit_tf import resnet_v2
from bit_tf import weights
from bit_tf import weights_file
from tests import agreement
from tests import published

NAME, CLASSES = "R26x0.5", 5
ARRAYS = published.arrays(NAME, CLASSES)
NAMES = ("w.npz", "w.safetensors", "w.weights.h5", "w.keras", "folder")


@pytest.fixture(scope="module")
def model():
    found = resnet_v2.build(NAME, CLASSES, seed=7)
    for variable in found.variables:
        variable.assign(ARRAYS[variable.path])
    return found


@pytest.fixture
def npz(tmp_path):
    np.savez(tmp_path / "weights.npz", **ARRAYS)
    return tmp_path / "weights.npz"


def by_path(network) -> dict[str, np.ndarray]:
    return {v.path: v.numpy() for v in network.variables}


def assert_same(found, wanted, keys=None):
    for key in keys or wanted:
        np.testing.assert_array_equal(found[key], wanted[key], err_msg=key)


@pytest.mark.parametrize("name", NAMES)
def test_weights_come_back_bit_for_bit(name, model, tmp_path):
    weights.save(tmp_path / name, model)
    other = resnet_v2.build(NAME, CLASSES)
    assert weights.load(tmp_path / name, other) is None
    assert_same(by_path(other), ARRAYS)
    # Nothing half-written stays behind.
    assert [p.name for p in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", NAMES)
def test_a_network_without_a_head_too(name, model, tmp_path):
    headless = resnet_v2.build(NAME)
    for variable in headless.variables:
        variable.assign(ARRAYS[variable.path])
    weights.save(tmp_path / name, headless)
    with weights_file.opened(tmp_path / name) as stored:
        assert stored.num_classes is None
    other = resnet_v2.build(NAME, 3)
    other.get_layer("head").conv.bias.assign([1.0, 2.0, 3.0])
    remark = weights.load(tmp_path / name, other)
    assert "no head" in remark and "3 starts at zero" in remark
    assert_same(by_path(other), by_path(headless))
    assert not by_path(other)[layout.HEAD_BIAS].any()


def test_a_head_for_other_classes_becomes_zero(npz):
    other = resnet_v2.build(NAME, 8)
    other.get_layer("head").conv.bias.assign(np.ones(8))
    remark = weights.load(npz, other)
    assert "5 classes" in remark and "8 starts at zero" in remark
    found = by_path(other)
    body = [key for key in ARRAYS if key not in layout.HEAD]
    assert_same(found, ARRAYS, body)
    assert not any(found[key].any() for key in layout.HEAD)


def test_a_network_without_a_head_leaves_the_files(npz):
    headless = resnet_v2.build(NAME)
    assert weights.load(npz, headless) is None
    assert_same(ARRAYS, by_path(headless))


def test_the_npz_is_plain_numpy_in_the_published_layout(model, tmp_path):
    weights.save(tmp_path / "w.npz", model)
    with np.load(tmp_path / "w.npz", allow_pickle=False) as stored:
        assert set(stored.files) == set(ARRAYS)
        assert_same(stored, ARRAYS)
        assert {stored[k].dtype for k in stored.files} == {np.dtype("f4")}
        assert stored[layout.HEAD_KERNEL].shape == (1, 1, 1024, CLASSES)


def test_the_safetensors_is_read_by_its_library(model, tmp_path):
    weights.save(tmp_path / "w.safetensors", model)
    found = safetensors.numpy.load_file(tmp_path / "w.safetensors")
    assert len(found) == len(ARRAYS)
    key = "resnet/block2/unit01/b/standardized_conv2d/kernel"
    np.testing.assert_array_equal(
        found["stages.1.blocks.0.conv2.weight"],
        np.einsum("hwio->oihw", ARRAYS[key]),
    )
    assert found["head.fc.weight"].shape == (CLASSES, 1024, 1, 1)


def test_the_folder_is_what_transformers_expects(model, tmp_path):
    names = [f"class {number}" for number in range(CLASSES)]
    weights.save(tmp_path / "x", model, class_names=names, image_size=160)
    config = json.loads((tmp_path / "x" / "config.json").read_text())
    assert config["hidden_sizes"] == [128, 256, 512, 1024]
    assert config["id2label"]["4"] == "class 4"
    found = safetensors.numpy.load_file(tmp_path / "x" / "model.safetensors")
    assert found["classifier.1.weight"].shape == (CLASSES, 1024)
    processor = json.loads(
        (tmp_path / "x" / "preprocessor_config.json").read_text()
    )
    assert processor["size"] == {"height": 160, "width": 160}


KERAS_READS = """
import sys, keras, numpy as np
import bit_tf.resnet_v2 as resnet_v2
directory = sys.argv[1]
images = np.load(directory + "/images.npy")
a = keras.saving.load_model(directory + "/w.keras", safe_mode=True)
b = resnet_v2.build("R26x0.5", 5)
b.load_weights(directory + "/w.weights.h5")
np.save(directory + "/a.npy", a.predict(images, verbose=0))
np.save(directory + "/b.npy", b.predict(images, verbose=0))
"""


def test_keras_reads_its_formats_in_another_process(model, tmp_path):
    for name in ("w.keras", "w.weights.h5"):
        weights.save(tmp_path / name, model)
    images = np.random.default_rng(0).uniform(-1, 1, (2, 40, 56, 3))
    images = images.astype(np.float32)
    np.save(tmp_path / "images.npy", images)
    subprocess.run(
        [sys.executable, "-c", KERAS_READS, str(tmp_path)],
        check=True,
        capture_output=True,
    )
    wanted = model(images).numpy()
    for name in ("a", "b"):
        found = np.load(tmp_path / f"{name}.npy")
        assert agreement.relative_error(found, wanted) < agreement.ROUNDING


def test_odd_names_are_read(tmp_path):
    odd = {}
    for number, (key, array) in enumerate(ARRAYS.items()):
        if "unit01/a/proj" in key:
            key = key.replace("standardized_conv2d/kernel", "kernel")
        odd[
            key.replace("standardized_conv2d", f"standardized_conv2d_{number}")
        ] = array
    assert not set(odd) >= set(ARRAYS)
    np.savez(tmp_path / "odd.npz", **odd)
    other = resnet_v2.build(NAME, CLASSES)
    weights.load(tmp_path / "odd.npz", other)
    assert_same(by_path(other), ARRAYS)


def test_half_precision_files_are_read(tmp_path):
    half = {key: array.astype(np.float16) for key, array in ARRAYS.items()}
    np.savez(tmp_path / "half.npz", **half)
    other = resnet_v2.build(NAME, CLASSES)
    weights.load(tmp_path / "half.npz", other)
    assert_same(by_path(other), half)


@pytest.mark.parametrize("name", ["w.safetensors", "folder"])
def test_a_wrong_tensor_is_named_as_the_file_has_it(name, model, tmp_path):
    weights.save(tmp_path / name, model)
    file = tmp_path / name
    if file.is_dir():
        file = file / "model.safetensors"
    stored = safetensors.numpy.load_file(file)
    own = next(
        k
        for k in stored
        if k.endswith("s.2.blocks.0.conv3.weight")
        or k.endswith("stages.2.layers.0.conv3.weight")
    )
    wrong = stored | {own: stored[own].swapaxes(0, 1).copy()}
    safetensors.numpy.save_file(wrong, file)
    with (
        pytest.raises(ValueError, match="shape") as caught,
        weights_file.opened(tmp_path / name),
    ):
        pass
    assert own in str(caught.value)
    assert "block3/unit01/c/standardized_conv2d" in str(caught.value)
    del stored[own]
    safetensors.numpy.save_file(stored, file)
    with (
        pytest.raises(ValueError, match="block3/unit01/c.* is missing"),
        weights_file.opened(tmp_path / name),
    ):
        pass


@pytest.mark.parametrize(
    ("name", "content", "wanted"),
    [
        ("none.npz", None, "does not exist"),
        ("text.npz", b"no zip", "cannot be read as .npz"),
        ("empty.npz", b"", "cannot be read as .npz"),
        ("text.h5", b"no hdf5", "cannot be read as .h5"),
        (
            "text.safetensors",
            b"no such thing",
            "cannot be read as .safetensors",
        ),
        ("text.keras", b"no zip", "cannot be read as .keras"),
        ("text.pth", b"anything", "its name says no format"),
    ],
)
def test_what_is_no_weights_file_is_refused(name, content, wanted, tmp_path):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with (
        pytest.raises(ValueError, match=wanted) as caught,
        weights_file.opened(tmp_path / name),
    ):
        pass
    assert name in str(caught.value)


def test_a_folder_of_something_else_is_refused(tmp_path):
    with (
        pytest.raises(ValueError, match="no model.safetensors"),
        weights_file.opened(tmp_path),
    ):
        pass


def test_another_architecture_is_refused_with_both_names(npz):
    with pytest.raises(ValueError, match="is of R26x0.5, and R26x1 is wanted"):
        weights.load(npz, resnet_v2.build("R26x1", CLASSES))


def test_large_tensors_are_set_in_slices_on_all_devices(npz, monkeypatch):
    monkeypatch.setattr(weights, "_SLICE_BYTES", 10_000)
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    with strategy.scope():
        mirrored = resnet_v2.build(NAME, CLASSES)
    one = resnet_v2.build(NAME, CLASSES)
    for network in (mirrored, one):
        weights.load(npz, network)
        assert_same(by_path(network), ARRAYS)
    for variable in mirrored.variables:
        for copy in variable.value.values:
            np.testing.assert_array_equal(copy, ARRAYS[variable.path])


def test_what_was_set_in_slices_is_read_in_place(npz, monkeypatch):
    monkeypatch.setattr(weights, "_SLICE_BYTES", 10_000)
    # What is read from a GPU is copied in any case.
    with tf.device("CPU:0"):
        network = resnet_v2.build(NAME, CLASSES)
    weights.load(npz, network)
    for variable in network.variables:
        reads = [variable.value.read_value() for _ in range(2)]
        one, two = (np.frombuffer(memoryview(r), np.uint8) for r in reads)
        assert np.shares_memory(one, two), variable.path


def test_what_a_keras_file_says_to_build_is_not_built(model, tmp_path):
    weights.save(tmp_path / "w.keras", model)
    import zipfile

    with zipfile.ZipFile(tmp_path / "w.keras") as archive:
        members = {n: archive.read(n) for n in archive.namelist()}
    members["config.json"] = b'{"module": "os", "class_name": "system"}'
    with zipfile.ZipFile(tmp_path / "evil.keras", "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    other = resnet_v2.build(NAME, CLASSES)
    weights.load(tmp_path / "evil.keras", other)
    assert_same(by_path(other), ARRAYS)


@pytest.mark.parametrize("name", ["w.pth", "w.h5", "w.bin", ""])
def test_names_without_a_format_to_write_are_refused(name, model):
    with pytest.raises(ValueError, match="no format that can be written"):
        weights.save(name, model)


def test_an_older_file_stays_when_writing_fails(model, tmp_path, monkeypatch):
    for name in NAMES:
        weights.save(tmp_path / name, model)

    def broken(_):
        raise OSError("no space left")

    monkeypatch.setattr(keras.ops, "convert_to_numpy", broken)
    with pytest.raises(OSError):
        weights.save(tmp_path / "w.npz", model)
    monkeypatch.undo()
    other = resnet_v2.build(NAME, CLASSES)
    weights.load(tmp_path / "w.npz", other)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(NAMES)
