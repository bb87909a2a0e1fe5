"""The SavedModel works without this code and gives the same numbers."""

import json
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from bit_tf import resnet_v2
from bit_tf import saved_model
from bit_tf import workdir as workdir_lib
from tests import agreement

NAMES = ("ant", "bée", "cat & dog")
# Runs where bit_tf cannot be imported and prints what it finds as JSON.
CONSUMER = """
import json, sys
sys.modules["bit_tf"] = None
import numpy as np
import tensorflow as tf
path, images_path = sys.argv[1:]
root = tf.saved_model.load(path)
images = np.load(images_path)
before = root(images).numpy()
serve = root.signatures["serving_default"](images=tf.constant(images))
features = root.features(images).numpy()
by_signature = root.signatures["features"](images=tf.constant(images))
with tf.GradientTape() as tape:
    loss = tf.reduce_mean(root(images, training=True)[:, 0])
    loss += sum(f() for f in root.regularization_losses)
gradients = tape.gradient(loss, root.trainable_variables)
for variable, gradient in zip(root.trainable_variables, gradients):
    variable.assign_sub(0.1 * gradient)
print(json.dumps({
    "logits": before.tolist(),
    "trained": root(images).numpy().tolist(),
    "served": serve["logits"].numpy().tolist(),
    "probabilities": serve["probabilities"].numpy().tolist(),
    "features": features.tolist(),
    "features_signature": by_signature["features"].numpy().tolist(),
    "odd_size": list(root(images[:1, :37, :53]).shape),
    "variables": len(root.variables),
    "trainable": len(root.trainable_variables),
    "regularization": len(root.regularization_losses),
    "class_names": [n.decode() for n in root.class_names().numpy()],
    "keras": "keras" in type(root).__module__,
}))
"""


@pytest.fixture(scope="module")
def consumed(tmp_path_factory):
    path = tmp_path_factory.mktemp("export")
    model = resnet_v2.build("R26x0.5", 3, seed=3)
    head = model.get_layer("head").conv.kernel
    head.assign(np.random.default_rng(0).normal(size=head.shape) * 0.1)
    saved_model.write(
        path / "model",
        model,
        class_names=NAMES,
        crop=64,
        weight_decay=1e-4,
        training={"top1": 0.5},
    )
    images = np.random.default_rng(1).uniform(size=(2, 64, 64, 3))
    np.save(path / "images.npy", images.astype(np.float32))
    printed = subprocess.run(
        [
            sys.executable,
            "-c",
            CONSUMER,
            str(path / "model"),
            str(path / "images.npy"),
        ],
        check=True,
        capture_output=True,
        text=True,
        cwd=path,
    ).stdout
    return json.loads(printed), model, images, path / "model"


def test_images_in_unit_range_give_the_networks_logits(consumed):
    found, model, images, _ = consumed
    wanted = model(images.astype(np.float32) * 2 - 1).numpy()
    # float32 rounding between two graphs of the same network.
    for name in ("logits", "served"):
        error = agreement.relative_error(found[name], wanted)
        assert error < agreement.ROUNDING


def test_signatures_give_probabilities_and_features(consumed):
    found, model, _, _ = consumed
    logits = np.array(found["logits"])
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    np.testing.assert_allclose(
        found["probabilities"],
        odds / odds.sum(axis=1, keepdims=True),
        atol=1e-5,
    )
    head = model.get_layer("head").conv.kernel.numpy()[0, 0]
    error = agreement.relative_error(np.array(found["features"]) @ head, logits)
    assert error < agreement.ROUNDING
    error = agreement.relative_error(
        found["features_signature"], found["features"]
    )
    assert error < agreement.ROUNDING


def test_it_is_a_reusable_saved_model(consumed):
    found, model, _, _ = consumed
    assert found["variables"] == len(model.variables)
    assert found["trainable"] == len(model.trainable_variables)
    kernels = [v for v in model.variables if v.path.endswith("kernel")]
    assert found["regularization"] == len(kernels)
    assert not found["keras"]
    assert found["odd_size"] == [1, 3]


def test_it_can_be_fine_tuned(consumed):
    found, *_ = consumed
    before, after = np.array(found["logits"]), np.array(found["trained"])
    assert after[:, 0].mean() < before[:, 0].mean()


def test_class_names_are_inside(consumed):
    found, _, _, path = consumed
    assert found["class_names"] == list(NAMES)
    labels = (path / "assets" / "labels.txt").read_text(encoding="utf-8")
    assert labels.splitlines() == list(NAMES)
    facts = json.loads((path / "assets" / "bit_tf.json").read_text())
    assert facts["class_names"] == list(NAMES)
    assert facts["image_size"] == 64
    assert facts["architecture"] == "R26x0.5"
    assert facts["training"] == {"top1": 0.5}


def test_it_is_whole(consumed):
    assert workdir_lib.verify_directory(consumed[3])


def test_without_weight_decay_there_are_no_losses(tmp_path):
    model = resnet_v2.build("R26x0.5", 3)
    saved_model.write(tmp_path / "m", model, class_names=NAMES, crop=32)
    root = tf.saved_model.load(str(tmp_path / "m"))
    assert list(root.regularization_losses) == []


def test_names_must_match_the_outputs(tmp_path):
    model = resnet_v2.build("R26x0.5", 3)
    with pytest.raises(ValueError, match="2 class names for 3 outputs"):
        saved_model.write(tmp_path / "m", model, class_names="ab", crop=32)
    assert not (tmp_path / "m").exists()


def test_exporting_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(ValueError, match="not the workdir of a run"):
        saved_model.export_run(workdir_lib.Workdir(tmp_path), tmp_path / "out")
    (tmp_path / "recipe.json").write_text('{"total_steps": 3}')
    with pytest.raises(ValueError, match="has not ended"):
        saved_model.export_run(workdir_lib.Workdir(tmp_path), tmp_path / "out")
