"""The SavedModel works without this code and gives the same numbers."""

import json
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from bit_tf import exportable as exportable_lib
from bit_tf import resnet_v2
from bit_tf import saved_model
from bit_tf import serving
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
serve = root.signatures["image_tensor"](images=tf.constant(images))
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
    "classes": [[n.decode() for n in r] for r in serve["classes"].numpy()],
    "scores": serve["scores"].numpy().tolist(),
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
# The same under Keras 3.
KERAS_CONSUMER = """
import json, sys
sys.modules["bit_tf"] = None
import keras
import numpy as np
path, images_path = sys.argv[1:]
images = np.load(images_path)
layer = keras.layers.TFSMLayer(
    path, call_endpoint="serve", call_training_endpoint="serve_training"
)
model = keras.Sequential([keras.Input((None, None, 3)), layer])
logits = model.predict(images, verbose=0)
before = [w.numpy() for w in layer.trainable_weights]
model.compile(
    keras.optimizers.SGD(0.003),
    keras.losses.SparseCategoricalCrossentropy(from_logits=True),
)
history = model.fit(images, np.array([0, 1]), epochs=4, verbose=0)
print(json.dumps({
    "logits": logits.tolist(),
    "loss": history.history["loss"],
    "moved": sum(
        bool((a != b.numpy()).any())
        for a, b in zip(before, layer.trainable_weights)
    ),
}))
"""


def exportable(model=None, **kwargs):
    if model is None:
        model = resnet_v2.build("R26x0.5", 3)
    kwargs = {"class_names": NAMES, "crop": 64} | kwargs
    return exportable_lib.Exportable(model=model, **kwargs)


def with_random_head(model):
    head = model.get_layer("head").conv.kernel
    head.assign(np.random.default_rng(0).normal(size=head.shape) * 0.1)
    return model


def consume(script, path):
    printed = subprocess.run(
        [
            sys.executable,
            *("-c", script),
            *(str(path / "model"), str(path / "images.npy")),
        ],
        check=True,
        capture_output=True,
        text=True,
        cwd=path,
    ).stdout
    return json.loads(printed)


def test_images_of_another_range_are_refused():
    model = resnet_v2.build("R26x0.5", 3, seed=3)
    wrong = "decode|resize(32)|value_range(-1, 1)"
    with pytest.raises(ValueError, match="the range that the network knows"):
        exportable(model, preprocessing=wrong)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    path = tmp_path_factory.mktemp("export")
    model = with_random_head(resnet_v2.build("R26x0.5", 3, seed=3))
    saved_model.write(
        path / "model",
        exportable(
            model,
            weight_decay=1e-4,
            training={
                "top1": 0.5,
                "data": {
                    "dataset": "folder:a|b",
                    "train_examples": 8,
                    "eval_examples": 4,
                },
            },
            source="mine.npz",
            sha256="0123",
            license="apache-2.0",
        ),
    )
    images = np.random.default_rng(1).uniform(size=(2, 64, 64, 3))
    np.save(path / "images.npy", images.astype(np.float32))
    return path, model, images


@pytest.fixture(scope="module")
def consumed(written):
    path, model, images = written
    return consume(CONSUMER, path), model, images, path / "model"


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
    order = np.argsort(-np.array(found["probabilities"]), axis=1)
    assert found["classes"] == [[NAMES[i] for i in row] for row in order]
    np.testing.assert_allclose(
        found["scores"], np.sort(found["probabilities"])[:, ::-1], atol=1e-7
    )


def test_keras_3_predicts_and_fine_tunes_with_it(written):
    path, model, images = written
    found = consume(KERAS_CONSUMER, path)
    wanted = model(images.astype(np.float32) * 2 - 1).numpy()
    error = agreement.relative_error(found["logits"], wanted)
    assert error < agreement.ROUNDING
    assert found["moved"] == len(model.trainable_variables)
    assert found["loss"][-1] < found["loss"][0]


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
    assert facts["training"]["top1"] == 0.5
    assert facts["weights"] == {"source": "mine.npz", "sha256": "0123"}
    card = (path / "README.md").read_text(encoding="utf-8")
    assert card.startswith("---\nlicense: apache-2.0\n")
    assert "value: 0.5" in card and r"cat & dog" in card
    assert r"folder:a\|b" in card and "0123" in card


def test_it_is_whole(consumed):
    assert workdir_lib.verify_directory(consumed[3])


def test_the_inference_form_gives_the_same_and_cannot_be_trained(
    written, tmp_path
):
    path, model, images = written
    saved_model.write(tmp_path / "m", exportable(model), form="inference")
    raw = tf.saved_model.load(str(path / "model"))
    root = tf.saved_model.load(str(tmp_path / "m"))
    images = images.astype(np.float32)
    error = agreement.relative_error(root(images).numpy(), raw(images).numpy())
    assert error < agreement.ROUNDING
    assert len(root.variables) == len(model.variables)
    assert list(root.trainable_variables) == []
    assert not hasattr(root, "serve_training")
    # The model itself is as it was.
    wanted = model(images * 2 - 1).numpy()
    error = agreement.relative_error(raw(images).numpy(), wanted)
    assert error < agreement.ROUNDING
    # Nothing is standardised at a call, only the images are.
    norms = sum(v.path.endswith("gamma") for v in model.variables)
    kernels = sum("standardized" in v.path for v in model.variables)
    for loaded, count in ((root, norms), (raw, norms + kernels)):
        deviations = [
            op
            for function in loaded.signatures[
                "image_tensor"
            ].graph._functions.values()
            for op in function.graph.get_operations()
            if op.type == "Rsqrt"
        ]
        assert len(deviations) == count


def test_without_a_head_it_is_a_feature_vector(written, tmp_path):
    path, model, images = written
    headless = exportable_lib.without_head(exportable(model))
    saved_model.write(tmp_path / "m", headless)
    images = images.astype(np.float32)
    root = tf.saved_model.load(str(tmp_path / "m"))
    classifier = tf.saved_model.load(str(path / "model"))
    wanted = classifier.features(images).numpy()
    assert root(images).shape == (2, 1024)
    served = root.signatures["image_tensor"](images=tf.constant(images))
    for found in (root(images), root.features(images), served["features"]):
        error = agreement.relative_error(found.numpy(), wanted)
        assert error < agreement.ROUNDING
    facts = json.loads((tmp_path / "m" / "assets" / "bit_tf.json").read_text())
    assert facts["head"] is None and facts["class_names"] == []
    assert "image-feature-extraction" in (tmp_path / "m/README.md").read_text()


def test_without_weight_decay_there_are_no_losses(tmp_path):
    saved_model.write(tmp_path / "m", exportable(crop=32))
    root = tf.saved_model.load(str(tmp_path / "m"))
    assert list(root.regularization_losses) == []


def test_names_must_match_the_outputs():
    with pytest.raises(ValueError, match="2 class names for 3 outputs"):
        exportable(class_names="ab")


def test_wrong_numbers_are_not_written(monkeypatch, tmp_path):
    model = with_random_head(resnet_v2.build("R26x0.5", 3, seed=1))
    real = serving.outputs

    def wrong(found, **kwargs):
        return real({"logits": found["logits"] * 1.01}, **kwargs)

    monkeypatch.setattr(serving, "outputs", wrong)
    with pytest.raises(RuntimeError, match="outputs differ"):
        saved_model.write(tmp_path / "m", exportable(model))
    assert list(tmp_path.iterdir()) == []


def test_exporting_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(ValueError, match="not the workdir of a run"):
        exportable_lib.of_run(workdir_lib.Workdir(tmp_path))
    (tmp_path / "recipe.json").write_text('{"total_steps": 3}')
    with pytest.raises(ValueError, match="has not ended"):
        exportable_lib.of_run(workdir_lib.Workdir(tmp_path))
