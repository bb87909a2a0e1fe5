"""TensorFlow Hub loads and fine-tunes the SavedModel; bit_tf is not there."""

import json
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("tensorflow_hub", reason="make parity installs it")

from bit_tf import exportable
from bit_tf import resnet_v2
from bit_tf import saved_model
from tests import agreement

pytestmark = pytest.mark.parity

CONSUMER = """
import json, os, sys
os.environ["TF_USE_LEGACY_KERAS"] = "1"
sys.modules["bit_tf"] = None
import numpy as np, tensorflow as tf, tensorflow_hub as hub, tf_keras
path, images_path = sys.argv[1:]
images = np.load(images_path)
logits = hub.load(path)(images).numpy()
layer = hub.KerasLayer(path, trainable=True)
model = tf_keras.Sequential([layer])
kept = model(images).numpy()
before = [v.numpy() for v in layer.trainable_variables]
model.compile(
    tf_keras.optimizers.SGD(0.01),
    tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True),
)
history = model.fit(
    images, np.array([0, 1]), epochs=4, verbose=0, batch_size=2
).history["loss"]
moved = sum(
    bool((a != b.numpy()).any())
    for a, b in zip(before, layer.trainable_variables)
)
print(json.dumps({
    "logits": logits.tolist(), "kept": kept.tolist(), "loss": history,
    "moved": moved, "trainable": len(before), "penalties": len(layer.losses),
}))
"""


def test_hub_loads_and_fine_tunes(tmp_path):
    model = resnet_v2.build("R26x0.5", 2, seed=3)
    head = model.get_layer("head").conv.kernel
    head.assign(np.random.default_rng(0).normal(size=head.shape) * 0.1)
    saved_model.write(
        tmp_path / "model",
        exportable.Exportable(
            model=model, class_names=("a", "b"), crop=64, weight_decay=1e-4
        ),
    )
    images = np.random.default_rng(1).uniform(size=(2, 64, 64, 3))
    images = images.astype(np.float32)
    np.save(tmp_path / "images.npy", images)
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            CONSUMER,
            str(tmp_path / "model"),
            str(tmp_path / "images.npy"),
        ],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    wanted = model(images * 2 - 1).numpy()
    for name in ("logits", "kept"):
        error = agreement.relative_error(found[name], wanted)
        assert error < agreement.ROUNDING
    assert found["trainable"] == len(model.trainable_variables)
    assert found["moved"] == found["trainable"]
    assert found["loss"][-1] < found["loss"][0]
    assert found["penalties"] == sum(
        v.path.endswith("kernel") for v in model.trainable_variables
    )
