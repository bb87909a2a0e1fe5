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
from bit_tf import normalisation

FORMULATIONS = ("cpu", "portable", "plain")
# Added to the variance. It is zero in float16, hence the float32 below.
STANDARDIZATION_EPSILON = 1e-10
# Elements (1 MB in float32) from which a tensor no longer stays in a cache
# between two operations. Compiling a shape takes some 0.2 s.
FUSED_ELEMENTS = 2**18

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
    kernel = normalisation.float32_or_wider(kernel)
    if chosen() != "cpu" or kernel.dtype != tf.float32:
        centred = kernel - tf.reduce_mean(kernel, (0, 1, 2), keepdims=True)
        variance = tf.reduce_mean(tf.square(centred), (0, 1, 2), keepdims=True)
        return centred * tf.math.rsqrt(variance + STANDARDIZATION_EPSILON)
    # The gradient is that of the numbers that were read, whatever a variable
    # holds by then.
    return _standardize_as_a_batch(tf.convert_to_tensor(kernel))


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
        return normalisation.like(products, images)
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


@dataclasses.dataclass(frozen=True)
class _Way:
    """Functions of `normalisation` for a tensor."""

    normalise: Callable
    apply: Callable
    gradients: Callable
    is_fused: bool = False

    @classmethod
    def made(cls, wrap, sums, **kwargs):
        return cls(
            wrap(functools.partial(normalisation.normalise, sums=sums)),
            wrap(normalisation.apply),
            wrap(functools.partial(normalisation.gradients, sums=sums)),
            **kwargs,
        )


_PLAIN = _Way.made(lambda function: function, normalisation.by_reduction)
_DIRECT = _Way.made(lambda function: function, normalisation.by_matrix)
# Not traced at each of the fifty places that have a shape.
_SHARED = _Way.made(_shared, normalisation.by_matrix)
_FUSED = _Way.made(ahead.Compiled, normalisation.by_reduction, is_fused=True)


def _way(x) -> _Way:
    """Returns how to normalise `x`."""
    if chosen() == "plain":
        return _PLAIN
    if chosen() == "portable" or tf.executing_eagerly():
        return _DIRECT
    size = x.shape.num_elements()
    return _FUSED if size and size >= FUSED_ELEMENTS else _SHARED


def _is_matrix(kernel, strides) -> bool:
    """Returns whether the convolution is a multiplication of matrices."""
    return kernel.shape[0] == 1 and strides == 1


def _padding(pad):
    return ((0, 0), (pad, pad), (pad, pad), (0, 0))
