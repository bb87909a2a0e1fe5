"""How the network's arithmetic is put to TensorFlow.

A formulation does not change what is computed, only what it costs. There are
three, and this file is the one place that knows them:

"cpu"       Training on CPUs, where every operation that TensorFlow runs reads
            and writes its tensors whole: few of them, gradients written by
            hand, and large tensors through XLA, which makes one loop of a
            chain.
"portable"  Much the same forward pass, with TensorFlow's own gradients: for
            inference, and for files that outlive this process.
"plain"     As the papers have it: for compilers that find the fast way
            themselves (GPU, TPU, XLA), and for converters, which look for
            what they know.
"""

import contextlib
import contextvars
import dataclasses
import functools
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from bit_tf import ahead

FORMULATIONS = ("cpu", "portable", "plain")
# Added to the variance. It is zero in float16, hence the float32 below.
STANDARDIZATION_EPSILON = 1e-10
# Elements (1 MB in float32) from which a tensor no longer stays in a cache
# between two operations. Compiling a shape takes some 0.2 s.
FUSED_ELEMENTS = 2**18
PARTIAL_SUMS = 4

_chosen = contextvars.ContextVar("formulation", default=None)


def _shared(function):
    """Returns a function that is traced once per shape, within graphs."""
    traced = tf.function(function, autograph=False)

    def call(*args):
        # By itself TensorFlow would warn of so many shapes.
        return (function if tf.executing_eagerly() else traced)(*args)

    return call


@contextlib.contextmanager
def using(name: str) -> Iterator[None]:
    """Within it all that is traced has this formulation.

    Raises:
        ValueError: not one of FORMULATIONS.
    """
    if name not in FORMULATIONS:
        raise ValueError(
            f"formulation {name!r}: allowed are {', '.join(FORMULATIONS)}."
        )
    token = _chosen.set(name)
    try:
        yield
    finally:
        _chosen.reset(token)


@contextlib.contextmanager
def for_inference() -> Iterator[None]:
    """Within it a network computes what an exported one does, to the bit."""
    with using("portable" if chosen() == "cpu" else chosen()):
        yield


def chosen() -> str:
    """Returns the formulation in use: "cpu" where nothing else computes."""
    name = _chosen.get()
    if name is None:
        strategy = tf.distribute.get_strategy()
        devices = [d.device_type for d in tf.config.list_logical_devices()]
        if tf.distribute.has_strategy():
            devices = strategy.extended.worker_devices
        is_cpu = all("CPU" in device for device in devices)
        name = "cpu" if is_cpu else "plain"
    return name


def standardize(kernel: tf.Tensor) -> tf.Tensor:
    """Gives every output channel of a kernel mean 0 and variance 1.

    Args:
        kernel: (height, width, in, out), floating point.

    Returns:
        The same shape, float32 or wider: (k - mean) / sqrt(var + 1e-10) with
        the biased variance over height, width and in (Qiao et al.,
        arXiv 1903.10520; epsilon as in the released models).
    """
    kernel = _float32_or_wider(kernel)
    if chosen() != "cpu" or kernel.dtype != tf.float32:
        centred = kernel - tf.reduce_mean(kernel, (0, 1, 2), keepdims=True)
        variance = tf.reduce_mean(tf.square(centred), (0, 1, 2), keepdims=True)
        return centred * tf.math.rsqrt(variance + STANDARDIZATION_EPSILON)
    return _standardize_as_a_batch(kernel)


@tf.custom_gradient
def _standardize_as_a_batch(kernel):
    # It is what batch normalisation does with a batch of that many pixels,
    # and its kernels read the weights half as often, above all backwards. Not
    # for other processors: cuDNN has had a least epsilon of 1e-5.
    result, *statistics = _batch_normalised(kernel)

    def gradient(upstream):
        return _batch_normalised_gradient(upstream, kernel, *statistics)

    return result, gradient


@_shared
def _batch_normalised(kernel):
    """Returns the result, and what its gradient needs beside the kernel."""
    channels = kernel.shape[-1]
    normalised, _, _, *statistics = tf.raw_ops.FusedBatchNormV3(
        x=tf.reshape(kernel, (1, 1, -1, channels)),
        # Of NumPy, here and below, where TensorFlow would build operations.
        scale=np.ones(channels, np.float32),
        offset=np.zeros(channels, np.float32),
        mean=np.zeros(0, np.float32),
        variance=np.zeros(0, np.float32),
        epsilon=STANDARDIZATION_EPSILON,
        is_training=True,
    )
    return tf.reshape(normalised, kernel.shape), *statistics


@_shared
def _batch_normalised_gradient(upstream, kernel, *statistics):
    channels = kernel.shape[-1]
    names = "reserve_space_1", "reserve_space_2", "reserve_space_3"
    of_kernel, *_ = tf.raw_ops.FusedBatchNormGradV3(
        y_backprop=tf.reshape(upstream, (1, 1, -1, channels)),
        x=tf.reshape(kernel, (1, 1, -1, channels)),
        scale=np.ones(channels, np.float32),
        epsilon=STANDARDIZATION_EPSILON,
        is_training=True,
        **dict(zip(names, statistics, strict=True)),
    )
    return tf.reshape(of_kernel, kernel.shape)


def convolve(images: tf.Tensor, kernel: tf.Tensor, strides: int) -> tf.Tensor:
    """Convolves with (k - 1) // 2 zeros on every side.

    Args:
        images: (B, H, W, in).
        kernel: (k, k, in, out), k odd.
        strides: step in both directions.
    """
    if _is_matrix(kernel, strides) and chosen() != "plain":
        flat = tf.reshape(images, (-1, kernel.shape[2]))
        products = flat @ tf.reshape(kernel, kernel.shape[2:])
        return _like(products, images)
    # At stride 1 "same" is this very padding, and the faster kernels.
    if strides == 1:
        return tf.nn.conv2d(images, kernel, 1, "SAME")
    pad = (kernel.shape[0] - 1) // 2
    if pad:
        images = tf.pad(images, _padding(pad))
    return tf.nn.conv2d(images, kernel, strides, "VALID")


def group_norm(
    x: tf.Tensor,
    gamma: tf.Tensor,
    beta: tf.Tensor,
    *,
    groups: int,
    epsilon: float,
) -> tf.Tensor:
    """Normalises over (height, width, channels of a group).

    Statistics are taken in float32 or wider, in two passes: the one-pass
    E[x^2] - E[x]^2 loses all digits when the mean is large beside the
    deviation (Wu & He, arXiv 1803.08494).

    Args:
        x: (B, H, W, C), any floating dtype, which the result has too.
        gamma: (C,) scale, float32 or wider.
        beta: (C,) shift, the same.
        groups: number of contiguous channel blocks; divides the channels.
        epsilon: added to the variance.
    """
    way = _way(x)
    if chosen() != "cpu":
        return way.normalise(x, gamma, beta, groups, epsilon, False)[0]

    @tf.custom_gradient
    def norm(*inputs):
        x, gamma, beta = map(tf.stop_gradient, inputs)
        y, *statistics = way.normalise(x, gamma, beta, groups, epsilon, False)

        def gradient(upstream):
            return way.gradients(
                upstream, x, gamma, beta, *statistics, groups, False
            )

        return y, gradient

    return norm(x, *map(tf.convert_to_tensor, (gamma, beta)))


def norm_relu_convolve(
    x: tf.Tensor,
    gamma: tf.Tensor,
    beta: tf.Tensor,
    kernels: Sequence[tf.Tensor],
    *,
    strides: Sequence[int],
    groups: int,
    epsilon: float,
) -> list[tf.Tensor]:
    """Normalises, rectifies, and convolves with one or more kernels.

    What lies between is a function of `x`: where it is large, training does
    not keep it, and the backward pass computes it again.

    Args:
        x: (B, H, W, C).
        gamma: see `group_norm`.
        beta: see `group_norm`.
        kernels: see `convolve`; in the dtype of `x`.
        strides: of each kernel.
        groups: see `group_norm`.
        epsilon: see `group_norm`.

    Returns:
        A tensor per kernel.
    """
    way = _way(x)

    def outputs(y, kernels):
        return [
            convolve(y, k, s) for k, s in zip(kernels, strides, strict=True)
        ]

    if chosen() != "cpu":
        y, *_ = way.normalise(x, gamma, beta, groups, epsilon, True)
        return outputs(y, kernels)

    @tf.custom_gradient
    def unit(*inputs):
        # Off the tape, which would keep what the gradient below does not need.
        x, gamma, beta, *kernels = map(tf.stop_gradient, inputs)
        y, *statistics = way.normalise(x, gamma, beta, groups, epsilon, True)

        def gradient(*upstreams):
            rectified = y
            if way.is_fused:
                # Not before it is needed, or it would be kept after all.
                with tf.control_dependencies(upstreams):
                    again = tf.identity(x)
                rectified = way.apply(again, gamma, beta, *statistics, True)
            found = [
                _convolution_gradients(rectified, kernel, stride, upstream)
                for kernel, stride, upstream in zip(
                    kernels, strides, upstreams, strict=True
                )
            ]
            of_rectified = tf.add_n([of_images for of_images, _ in found])
            if not way.is_fused:
                of_rectified = tf.raw_ops.ReluGrad(
                    gradients=of_rectified, features=rectified
                )
            return (
                *way.gradients(
                    *(of_rectified, x, gamma, beta, *statistics, groups),
                    way.is_fused,
                ),
                *(of_kernel for _, of_kernel in found),
            )

        return outputs(y, kernels), gradient

    return unit(x, *map(tf.convert_to_tensor, (gamma, beta, *kernels)))


def _normalise(x, gamma, beta, groups, epsilon, relu, *, sums):
    """Returns what was asked for, and mean and 1 / deviation, (B, 1, C)."""
    flat = _float32_or_wider(_flat(x))
    pixels = tf.cast(_pixels(flat), flat.dtype)
    mean = _of_groups(sums(flat) / pixels, groups)
    squares = tf.math.squared_difference(flat, mean)
    variance = _of_groups(sums(squares) / pixels, groups)
    inverse = tf.math.rsqrt(variance + epsilon)
    return _apply(x, gamma, beta, mean, inverse, relu), mean, inverse


def _apply(x, gamma, beta, mean, inverse, relu):
    """Returns what `_normalise` does, given the statistics."""
    scale = inverse * gamma
    y = _float32_or_wider(_flat(x)) * scale + (beta - mean * scale)
    if relu:
        y = tf.nn.relu(y)
    return _like(tf.cast(y, x.dtype), x)


def _gradients(upstream, x, gamma, beta, mean, inverse, groups, relu, *, sums):
    """Returns the gradients of x, gamma and beta.

    With n = (x - mean) * inverse and <> the mean over a group, that of x is
    inverse * (gamma u - <gamma u> - n <gamma u n>).
    """
    u = _float32_or_wider(_flat(upstream))
    flat = _float32_or_wider(_flat(x))
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
        _like(tf.cast(of_x, x.dtype), x),
        tf.reduce_sum(of_gamma, (0, 1)),
        tf.reduce_sum(of_beta, (0, 1)),
    )


def _convolution_gradients(images, kernel, strides, upstream):
    """Returns the gradients of `convolve`'s images and kernel."""
    if _is_matrix(kernel, strides):
        flat = tf.reshape(images, (-1, kernel.shape[2]))
        u = tf.reshape(upstream, (-1, kernel.shape[3]))
        matrix = tf.reshape(kernel, kernel.shape[2:])
        return (
            tf.reshape(
                tf.matmul(u, matrix, transpose_b=True), tf.shape(images)
            ),
            tf.reshape(tf.matmul(flat, u, transpose_a=True), kernel.shape),
        )
    pad = (kernel.shape[0] - 1) // 2 if strides > 1 else 0
    if pad:
        images = tf.pad(images, _padding(pad))
    options = {
        "out_backprop": upstream,
        "strides": (1, strides, strides, 1),
        "padding": "SAME" if strides == 1 else "VALID",
    }
    of_images = tf.raw_ops.Conv2DBackpropInput(
        input_sizes=tf.shape(images), filter=kernel, **options
    )
    if pad:
        of_images = of_images[:, pad:-pad, pad:-pad]
    return of_images, tf.raw_ops.Conv2DBackpropFilter(
        input=images, filter_sizes=kernel.shape, **options
    )


def _by_matrix(x):
    """(B, S, C) -> (B, 1, C) sums, faster than TensorFlow's reductions.

    Of a few stretches first, which costs little: a product adds one number
    after the other, and would round twice as much as the reductions do.
    """
    pixels = _pixels(x)
    every = tf.range if tf.is_tensor(pixels) else np.arange
    stretch = every(pixels)[None] * PARTIAL_SUMS // pixels
    ones = tf.one_hot(stretch, PARTIAL_SUMS, axis=1, dtype=x.dtype)
    return tf.reduce_sum(tf.matmul(ones, x), 1, keepdims=True)


def _by_reduction(x):
    """(B, S, C) -> (B, 1, C) sums, which compilers fuse."""
    return tf.reduce_sum(x, 1, keepdims=True)


@dataclasses.dataclass(frozen=True)
class _Way:
    """Functions for a tensor: `_normalise`, `_apply` and `_gradients`."""

    normalise: Callable
    apply: Callable
    gradients: Callable
    is_fused: bool = False

    @classmethod
    def made(cls, wrap, sums, **kwargs):
        return cls(
            wrap(functools.partial(_normalise, sums=sums)),
            wrap(_apply),
            wrap(functools.partial(_gradients, sums=sums)),
            **kwargs,
        )


_PLAIN = _Way.made(lambda function: function, _by_reduction)
_DIRECT = _Way.made(lambda function: function, _by_matrix)
# Not traced at each of the fifty places that have a shape.
_SHARED = _Way.made(_shared, _by_matrix)
_FUSED = _Way.made(ahead.Compiled, _by_reduction, is_fused=True)


def _way(x) -> _Way:
    """Returns how to normalise `x`."""
    if chosen() == "plain":
        return _PLAIN
    if chosen() == "portable" or tf.executing_eagerly():
        return _DIRECT
    size = x.shape.num_elements()
    return _FUSED if size and size >= FUSED_ELEMENTS else _SHARED


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


def _like(values, x):
    """Returns the values as (B, H, W, their channels), as `x` has B, H, W."""
    channels = values.shape[-1]
    shape = x.shape[:3]
    if shape.rank and shape.as_list().count(None) > 1:
        return tf.reshape(values, tf.concat([tf.shape(x)[:3], [channels]], 0))
    return tf.reshape(
        values, [-1 if n is None else n for n in shape] + [channels]
    )


def _is_matrix(kernel, strides) -> bool:
    """Returns whether the convolution is a multiplication of matrices."""
    return kernel.shape[0] == 1 and strides == 1


def _padding(pad):
    return ((0, 0), (pad, pad), (pad, pad), (0, 0))


def _float32_or_wider(x):
    return tf.cast(x, tf.float64 if x.dtype == tf.float64 else tf.float32)
