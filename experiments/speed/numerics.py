"""Prints how far each formulation is from the same in float64.

python experiments/speed/numerics.py

GroupNorm and ReLU of (4, 24, 24, 256) numbers whose mean is up to 10^4
deviations from zero, and standardised kernels. Largest error of the result,
whose deviation is 1, and of the gradient, as a share of its length. "Keras" is
GroupNormalization, "one pass" E[x^2] - E[x]^2.
"""

import functools

import keras
import numpy as np
import tensorflow as tf

from bit_tf import formulations

SHAPE = (4, 24, 24, 256)
GROUPS, EPSILON = 32, 1e-5
OFFSETS = (0, 1e2, 1e3, 1e4)
DTYPES = ("float32", "float16", "bfloat16")


KERAS = keras.layers.GroupNormalization(GROUPS, epsilon=EPSILON)
KERAS.build(SHAPE)


def keras_norm(x, gamma, beta):
    y, _ = KERAS.stateless_call([gamma, beta], [], tf.cast(x, tf.float32))
    return tf.cast(y, x.dtype)


def one_pass(x, gamma, beta):
    groups = tf.reshape(tf.cast(x, tf.float32), (SHAPE[0], -1, GROUPS, 8))
    mean = tf.reduce_mean(groups, (1, 3), keepdims=True)
    square = tf.reduce_mean(tf.square(groups), (1, 3), keepdims=True)
    y = (groups - mean) * tf.math.rsqrt(square - tf.square(mean) + EPSILON)
    return tf.cast(tf.reshape(y, SHAPE) * gamma + beta, x.dtype)


def ours(x, gamma, beta, *, formulation, fused=False):
    least = formulations.FUSED_ELEMENTS
    formulations.FUSED_ELEMENTS = 1 if fused else 2**62
    try:
        with formulations.using(formulation):
            return formulations.group_norm(
                x, gamma, beta, groups=GROUPS, epsilon=EPSILON
            )
    finally:
        formulations.FUSED_ELEMENTS = least


WAYS = {
    "Keras": keras_norm,
    "one pass": one_pass,
    "plain": functools.partial(ours, formulation="plain"),
    "portable": functools.partial(ours, formulation="portable"),
    "cpu": functools.partial(ours, formulation="cpu"),
    "cpu, fused": functools.partial(ours, formulation="cpu", fused=True),
}


def found(way, dtype, x, gamma, beta, upstream):
    """Returns the result and the gradient of x, float64."""

    @tf.function(autograph=False)
    def run(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = way(x, gamma, beta)
            loss = tf.reduce_sum(tf.cast(y, tf.float32) * upstream)
        return y, tape.gradient(loss, x)

    return [np.asarray(tf.cast(t, tf.float64)) for t in run(tf.cast(x, dtype))]


def truth(x, gamma, beta, upstream):
    x = tf.constant(x)
    with tf.GradientTape() as tape, formulations.using("plain"):
        tape.watch(x)
        y = formulations.group_norm(
            x, gamma, beta, groups=GROUPS, epsilon=EPSILON
        )
        loss = tf.reduce_sum(y * upstream)
    return y.numpy(), tape.gradient(loss, x).numpy()


def main() -> None:
    rng = np.random.default_rng(0)
    gamma, beta = rng.uniform(0.5, 1.5, 256), rng.normal(size=256)
    upstream = rng.normal(size=SHAPE)
    print("| | mean / deviation | " + " | ".join(WAYS) + " |")
    print("|---|---|" + "---|" * len(WAYS))
    for dtype in DTYPES:
        for offset in OFFSETS:
            # What the type holds of it is what all are given.
            x = tf.cast(rng.normal(size=SHAPE) + offset, dtype)
            x = tf.cast(x, tf.float64).numpy()
            if x.std() < 0.1 or not np.isfinite(x).all():
                continue
            wanted = truth(x, gamma, beta, upstream)
            cells = []
            for way in WAYS.values():
                y, dx = found(
                    way,
                    dtype,
                    x,
                    *(a.astype(np.float32) for a in (gamma, beta, upstream)),
                )
                error = np.abs(y - wanted[0]).max()
                length = np.linalg.norm(wanted[1])
                share = np.linalg.norm(dx - wanted[1]) / length
                cells.append(f"{error:.0e}, {share:.0e}")
            print(f"| {dtype} | {offset:g} | " + " | ".join(cells) + " |")
    kernel = rng.normal(size=(3, 3, 64, 64)) * 0.02 + 0.01
    centred = kernel - kernel.mean((0, 1, 2))
    wanted = centred / np.sqrt((centred**2).mean((0, 1, 2)) + 1e-10)
    for name in ("plain", "cpu"):
        with formulations.using(name):
            y = formulations.standardize(tf.constant(kernel, tf.float32))
        print(f"standardised, {name}: {np.abs(y.numpy() - wanted).max():.0e}")


if __name__ == "__main__":
    main()
