"""KerasHub's detectors take the network as their backbone."""

import importlib.util
import os
import subprocess
import sys

import pytest

pytestmark = [
    pytest.mark.parity,
    pytest.mark.skipif(
        importlib.util.find_spec("keras_hub") is None,
        reason="keras-hub is not there: make parity installs it",
    ),
]

DETECTOR = """
import keras, keras_hub, numpy as np
import bit_tf

encoder = bit_tf.BiT_R50x1(
    weights=None,
    include_top=False,
    include_preprocessing=False,
    input_shape=(128, 128, 3),
)
backbone = keras_hub.models.RetinaNetBackbone(
    image_encoder=encoder, min_level=3, max_level=7, use_p5=False
)
maps = backbone(np.zeros((1, 128, 128, 3), "float32"))
shapes = {name: tuple(value.shape) for name, value in maps.items()}
assert shapes == {
    f"P{level}": (1, 128 // 2**level, 128 // 2**level, 256)
    for level in range(3, 8)
}, shapes
detector = keras_hub.models.RetinaNetObjectDetector(
    backbone=backbone,
    num_classes=4,
    anchor_generator=keras_hub.layers.AnchorGenerator(
        bounding_box_format="yxyx",
        min_level=3,
        max_level=7,
        num_scales=3,
        aspect_ratios=[0.5, 1.0, 2.0],
        anchor_size=4.0,
    ),
    preprocessor=None,
)
names = {v.path for v in detector.trainable_variables}
assert sum("block4/unit03" in name for name in names) == 9, len(names)
boxes = detector.predict(np.zeros((1, 128, 128, 3), "float32"), verbose=0)
print("ok", sorted(boxes))
"""


def test_a_retinanet_is_built_on_it():
    done = subprocess.run(
        [sys.executable, "-c", DETECTOR],
        capture_output=True,
        text=True,
        env=os.environ | {"KERAS_BACKEND": "tensorflow"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines()[-1].startswith("ok")
