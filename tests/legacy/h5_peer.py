"""Lets tf.keras write an .h5 as the authors' TensorFlow 2 code did.

python h5_peer.py TENSORS.npz OUTPUT.h5

A subclassed model with their layers at its top level, each of which has its
tensors in the order of the file given; `save_weights` does the rest. Names are
made unique, as those of the network are not and this Keras refuses them.
"""

import sys

import numpy as np
import tensorflow as tf


class Part(tf.keras.layers.Layer):
    def __init__(self, values, **kwargs):
        super().__init__(**kwargs)
        self.parts = [
            self.add_weight(
                name=f"weight_{number}",
                shape=value.shape,
                initializer=tf.keras.initializers.Constant(value),
            )
            for number, value in enumerate(values)
        ]

    def call(self, x):
        return x


class Network(tf.keras.Model):
    def __init__(self, parts):
        super().__init__()
        self.parts = parts
        self.relu = tf.keras.layers.ReLU()

    def call(self, x):
        for part in self.parts:
            x = part(x)
        return self.relu(x)


def main(tensors: str, output: str) -> None:
    by_layer = {}
    with np.load(tensors) as given:
        for key in given.files:
            value = given[key]
            if key.endswith("head/conv2d/kernel"):
                value = value[0, 0]  # dense
            by_layer.setdefault(key.split("/")[1], []).append(value)
    model = Network(
        [Part(values, name=name) for name, values in by_layer.items()]
    )
    model(tf.zeros((1, 1)))
    model.save_weights(output)


if __name__ == "__main__":
    main(*sys.argv[1:])
