"""Run by test_hub.py under TensorFlow 2.15, without bit_tf.

python hub_consumer.py MODEL IMAGES.npy PHOTO RESULTS.json
"""

import json
import pathlib
import sys

import numpy as np
import tensorflow as tf
import tensorflow_addons as tfa
import tensorflow_hub as hub

path, images_path, photo, results = sys.argv[1:]
images = np.load(images_path)
root = hub.load(path)
served = root.signatures["serving_default"](
    image_bytes=tf.constant([pathlib.Path(photo).read_bytes(), b"no image"])
)
layer = hub.KerasLayer(path, trainable=True)
model = tf.keras.Sequential([layer])
found = {
    "logits": root(images).numpy().tolist(),
    "features": root.features(images).numpy().tolist(),
    "served": served["logits"].numpy().tolist(),
    "classes": np.char.decode(
        served["classes"].numpy().astype(bytes), "utf-8"
    ).tolist(),
    "errors": [text.decode() for text in served["error"].numpy()],
    "kept": model.predict(images, verbose=0).tolist(),
    "penalties": len(layer.losses),
    "moved": 0,
    "tensorflow": tf.__version__,
}
if layer.trainable_variables:
    before = [v.numpy() for v in layer.trainable_variables]
    model.compile(
        tfa.optimizers.SGDW(
            learning_rate=0.003, weight_decay=1e-4, momentum=0.9
        ),
        tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    history = model.fit(images, np.array([0, 1]), epochs=5, verbose=0)
    found["loss"] = history.history["loss"]
    found["moved"] = sum(
        bool((a != b.numpy()).any())
        for a, b in zip(before, layer.trainable_variables, strict=True)
    )
pathlib.Path(results).write_text(json.dumps(found))
