"""The arithmetic of GroupNorm and ReLU, forward and backward.

(Wu & He, arXiv 1803.08494.) What computes it is for `formulations` to choose.
Everywhere `x` is (B, H, W, C), any floating dtype; `gamma` and `beta` are (C,),
`mean` and `inverse`, 1 / deviation, (B, 1, C), float32 or wider; `relu` says
whether the result is rectified; and `sums` is one of the functions below.
"""

import numpy as np
import tensorflow as tf

# Stretches of pixels that `by_matrix` adds each for itself.
PARTIAL_SUMS = 4


def normalise(x, gamma, beta, groups, epsilon, relu, *, sums):
    """Returns what was asked for, like `x`, and `mean` and `inverse`."""
    flat = float32_or_wider(_flat(x))
    pixels = tf.cast(_pixels(flat), flat.dtype)
    mean = _of_groups(sums(flat) / pixels, groups)
    squares = tf.math.squared_difference(flat, mean)
    variance = _of_groups(sums(squares) / pixels, groups)
    inverse = tf.math.rsqrt(variance + epsilon)
    return apply(x, gamma, beta, mean, inverse, relu), mean, inverse


def apply(x, gamma, beta, mean, inverse, relu):
    """Returns what `normalise` does, given the statistics."""
    scale = inverse * gamma
    y = float32_or_wider(_flat(x)) * scale + (beta - mean * scale)
    if relu:
        y = tf.nn.relu(y)
    return like(tf.cast(y, x.dtype), x)


def gradients(upstream, x, gamma, beta, mean, inverse, groups, relu, *, sums):
    """Returns the gradients of x, gamma and beta, given the result's.

    With n = (x - mean) * inverse and <> the mean over a group, that of x is
    inverse * (gamma u - <gamma u> - n <gamma u n>).
    """
    u = float32_or_wider(_flat(upstream))
    flat = float32_or_wider(_flat(x))
    scale = inverse * gamma
    if relu:
        is_positive = flat * scale + (beta - mean * scale) > 0
        u = tf.where(is_positive, u, tf.zeros((), u.dtype))
    pixels = tf.cast(_pixels(flat), flat.dtype)
    centred = flat - mean
    of_beta = sums(u)  # (B, 1, C)
    of_gamma = sums(u * centred) * inverse
    mean_u = _of_groups(gamma * of_beta / pixels, groups)
    mean_un = _of_groups(gamma * of_gamma / pixels, groups)
    of_x = u * scale - (
        centred * (tf.square(inverse) * mean_un) + inverse * mean_u
    )
    return (
        like(tf.cast(of_x, x.dtype), x),
        tf.reduce_sum(of_gamma, (0, 1)),
        tf.reduce_sum(of_beta, (0, 1)),
    )


def by_matrix(x):
    """(B, S, C) -> (B, 1, C) sums, faster than TensorFlow's reductions.

    Of a few stretches first, which costs little: a product adds one number
    after the other, and would round twice as much as the reductions do.
    """
    pixels = _pixels(x)
    every = tf.range if tf.is_tensor(pixels) else np.arange
    stretch = every(pixels)[None] * PARTIAL_SUMS // pixels
    ones = tf.one_hot(stretch, PARTIAL_SUMS, axis=1, dtype=x.dtype)
    return tf.reduce_sum(tf.matmul(ones, x), 1, keepdims=True)


def by_reduction(x):
    """(B, S, C) -> (B, 1, C) sums, which compilers fuse."""
    return tf.reduce_sum(x, 1, keepdims=True)


def _of_groups(means, groups):
    """(B, 1, C) means of channels -> means of their groups, for each."""
    channels = means.shape[-1]
    size = channels // groups
    means = tf.reshape(means, (-1, 1, groups, size))
    means = tf.reduce_mean(means, 3, keepdims=True)
    return tf.reshape(
        means + tf.zeros((1, 1, 1, size), means.dtype), (-1, 1, channels)
    )


def _flat(x):
    """(B, H, W, C) -> (B, H * W, C)."""
    batch, height, width, channels = x.shape
    if height and width:
        return tf.reshape(x, (-1, height * width, channels))
    if batch:
        return tf.reshape(x, (batch, -1, channels))
    size = tf.shape(x)
    return tf.reshape(x, (size[0], size[1] * size[2], channels))


def _pixels(flat):
    """Returns how many pixels (B, S, C) has, if possible as a number."""
    return flat.shape[1] or tf.shape(flat)[1]


def like(values, x):
    """Returns the values as (B, H, W, their channels), as `x` has B, H, W."""
    channels = values.shape[-1]
    shape = x.shape[:3]
    if shape.rank and shape.as_list().count(None) > 1:
        return tf.reshape(values, tf.concat([tf.shape(x)[:3], [channels]], 0))
    return tf.reshape(
        values, [-1 if n is None else n for n in shape] + [channels]
    )


def float32_or_wider(x):
    """Returns float64 as it is, and all else in float32."""
    return tf.cast(x, tf.float64 if x.dtype == tf.float64 else tf.float32)
