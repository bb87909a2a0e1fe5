"""Runs the GroupNormalization of tensorflow-addons on files.

python tfa_peer.py INPUTS.npz OUTPUTS.npz

In the environment of requirements-legacy.txt, which has no bit_tf.
"""

import sys

import numpy as np
import tensorflow as tf
import tensorflow_addons as tfa


def main(inputs: str, outputs: str) -> None:
    found = {"versions": [tf.__version__, tfa.__version__]}
    with np.load(inputs) as given:
        cases = {key: given[key] for key in given.files}
    for case in sorted({key.split("/")[0] for key in cases}):
        x, gamma, beta, weight = (
            cases[f"{case}/{name}"] for name in ("x", "gamma", "beta", "weight")
        )
        layer = tfa.layers.GroupNormalization(
            groups=32, axis=-1, epsilon=1e-5, dtype=x.dtype
        )
        layer.build(x.shape)
        layer.set_weights([gamma, beta])
        x = tf.constant(x)
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x)
            loss = tf.reduce_sum(y * weight)
        gradients = tape.gradient(loss, [x, layer.gamma, layer.beta])
        found[f"{case}/y"] = y.numpy()
        for name, value in zip(
            ("dx", "dgamma", "dbeta"), gradients, strict=True
        ):
            found[f"{case}/{name}"] = value.numpy()
    np.savez(outputs, **found)


if __name__ == "__main__":
    main(*sys.argv[1:])
