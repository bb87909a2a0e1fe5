"""transformers takes our folder for its own, and we take its."""

import importlib.util
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
from PIL import Image

from bit_tf import resnet_v2
from bit_tf import weights
from bit_tf import weights_file
from tests import agreement
from tests import published

pytestmark = [
    pytest.mark.parity,
    pytest.mark.skipif(
        importlib.util.find_spec("transformers") is None,
        reason="transformers is not there: make parity installs it",
    ),
]
PEER = pathlib.Path(__file__).with_name("transformers_peer.py")
CLASSES = 5
SIZES = ((64, 64), (128, 128), (33, 64), (97, 161))
# As for timm, whose epsilon it shares.
TOLERANCE = 1e-4


@pytest.fixture(scope="module", params=["R50x1", "R101x1", "R26x2"])
def pair(request, tmp_path_factory):
    ours = resnet_v2.build(request.param, CLASSES)
    arrays = published.arrays(request.param, CLASSES)
    for v in ours.variables:
        v.assign(arrays[v.path])
    directory = tmp_path_factory.mktemp(request.param)
    weights.save(
        directory / "folder",
        ours,
        class_names=["a", "b", "c", "d", "e"],
        image_size=96,
    )
    rng = np.random.default_rng(0)
    inputs = {
        f"{h}x{w}": rng.uniform(-1, 1, (2, h, w, 3)).astype(np.float32)
        for h, w in SIZES
    }
    np.savez(directory / "inputs.npz", **inputs)
    pixels = rng.integers(0, 256, (96, 96, 3), np.uint8)
    Image.fromarray(pixels).save(directory / "picture.png")
    subprocess.run([sys.executable, str(PEER), str(directory)], check=True)
    with np.load(directory / "outputs.npz") as stored:
        theirs = {key: stored[key] for key in stored.files}
    return ours, inputs, theirs, directory, pixels


def test_logits_and_features_agree(pair):
    ours, inputs, theirs, _, _ = pair
    outputs = keras.Model(ours.input, ours.endpoints)
    assert ours.count_params() == theirs["parameters"]
    for size, images in inputs.items():
        found = outputs(images)
        for name, key in (("logits", "logits"), ("features", "pre_logits")):
            wanted = theirs[f"{name}/{size}"]
            error = agreement.relative_error(found[key], wanted)
            print(f"{ours.name} {size}: {name} differ by {error:.1e}")
            assert error < TOLERANCE


def test_what_transformers_saves_comes_back(pair):
    ours, _, _, directory, _ = pair
    with weights_file.opened(directory / "back") as stored:
        assert (stored.architecture, stored.num_classes) == (ours.name, CLASSES)
        for v in ours.variables:
            np.testing.assert_array_equal(stored.read(v.path), v.numpy())


def test_its_image_processor_gives_our_input(pair):
    _, _, theirs, _, pixels = pair
    np.testing.assert_allclose(
        theirs["pixels"][0], pixels / 127.5 - 1, atol=1e-6
    )


def test_class_names_arrive(pair):
    assert list(pair[2]["labels"]) == ["a", "b", "c"]
