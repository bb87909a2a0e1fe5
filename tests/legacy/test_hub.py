"""Who stayed with Keras 2 classifies and fine-tunes with our SavedModel."""

import json

import numpy as np
import pytest
import tensorflow as tf

from bit_tf import exportable
from bit_tf import resnet_v2
from bit_tf import saved_model
from tests import agreement

NAMES = ("ant", "bée")


@pytest.mark.parametrize("form", saved_model.FORMS)
def test_hub_and_addons(form, run_legacy, tmp_path):
    model = resnet_v2.build("R26x0.5", 2, seed=3)
    head = model.get_layer("head").conv.kernel
    head.assign(np.random.default_rng(0).normal(size=head.shape) * 0.1)
    subject = exportable.Exportable(
        model=model, class_names=NAMES, crop=64, weight_decay=1e-4
    )
    saved_model.write(tmp_path / "model", subject, form=form)
    images = np.random.default_rng(1).uniform(size=(2, 64, 64, 3))
    images = images.astype(np.float32)
    np.save(tmp_path / "images.npy", images)
    photo, _ = exportable.pictures(64)
    (tmp_path / "photo.jpg").write_bytes(photo)
    run_legacy(
        "hub_consumer.py",
        *("model", "images.npy", "photo.jpg", "results.json"),
        directory=tmp_path,
    )
    found = json.loads((tmp_path / "results.json").read_text())
    assert found["tensorflow"] == "2.15.1"
    wanted = model(images * 2 - 1).numpy()
    root = tf.saved_model.load(str(tmp_path / "model"))
    pixels = root.preprocess(tf.constant([photo]))
    served = model(pixels * 2 - 1).numpy()
    error = agreement.relative_error(found["served"][0], served[0])
    assert error < agreement.ROUNDING
    assert found["errors"][0] == "" and found["errors"][1]
    assert found["classes"][0][0] == NAMES[int(served[0].argmax())]
    for name in ("logits", "kept"):
        error = agreement.relative_error(found[name], wanted)
        assert error < agreement.ROUNDING
    if form == "inference":
        assert found["moved"] == found["penalties"] == 0
        return
    assert found["moved"] == len(model.trainable_variables)
    assert found["loss"][-1] < found["loss"][0]
    assert found["penalties"] == sum(
        v.path.endswith("kernel") for v in model.trainable_variables
    )
