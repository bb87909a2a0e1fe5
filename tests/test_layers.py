"""StdConv2D and GroupNorm are what the paper says, in NumPy."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from bit_tf import formulations
from bit_tf import layers


def numpy_group_norm(x, groups, epsilon, gamma, beta):
    batch, height, width, channels = x.shape
    grouped = x.astype(np.float64).reshape(batch, height * width, groups, -1)
    mean = grouped.mean(axis=(1, 3), keepdims=True)
    variance = grouped.var(axis=(1, 3), keepdims=True)
    normal = (grouped - mean) / np.sqrt(variance + epsilon)
    return normal.reshape(x.shape) * gamma + beta


@pytest.mark.parametrize("mean", [0.0, 1e2, 1e4])
def test_group_norm_equals_numpy(mean):
    rng = np.random.default_rng(0)
    x = (mean + rng.normal(size=(2, 5, 7, 64))).astype(np.float32)
    layer = layers.GroupNorm()
    layer.build(x.shape)
    gamma, beta = rng.normal(size=(2, 64)).astype(np.float32)
    layer.gamma.assign(gamma)
    layer.beta.assign(beta)
    wanted = numpy_group_norm(x, 32, 1e-5, gamma, beta)
    # A float32 sum of 70 terms: some ten units in the last place of the mean.
    np.testing.assert_allclose(
        layer(x), wanted, atol=1e-5 + 10 * 1.2e-7 * mean, rtol=1e-5
    )


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_group_norm_takes_statistics_in_float32(policy):
    # The squares of these overflow float16.
    x = np.random.default_rng(0).normal(size=(1, 4, 4, 32)) * 3e4
    x = np.clip(x, -6e4, 6e4).astype(np.float16).astype(np.float32)
    layer = layers.GroupNorm(dtype=policy)
    found = keras.ops.convert_to_numpy(keras.ops.cast(layer(x), "float32"))
    wanted = numpy_group_norm(
        keras.ops.convert_to_numpy(
            keras.ops.cast(keras.ops.cast(x, layer.compute_dtype), "float32")
        ),
        32,
        1e-5,
        1,
        0,
    )
    np.testing.assert_allclose(found, wanted, atol=0.02)


def test_standardization_equals_numpy():
    kernel = np.random.default_rng(0).normal(3, 0.2, size=(3, 3, 8, 5))
    mean = kernel.mean(axis=(0, 1, 2))
    # Biased variance, epsilon on the variance.
    wanted = (kernel - mean) / np.sqrt(kernel.var(axis=(0, 1, 2)) + 1e-10)
    np.testing.assert_allclose(
        formulations.standardize(tf.constant(kernel)), wanted, rtol=1e-12
    )


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_tiny_kernels_are_standardized_in_float32(policy):
    # In float16 the variance, 1e-8, and epsilon, 1e-10, are both zero.
    layer = layers.StdConv2D(4, 1, dtype=policy)
    layer.build((None, 4, 4, 8))
    kernel = 1e-4 * np.random.default_rng(0).normal(size=(1, 1, 8, 4))
    layer.kernel.assign(kernel)
    x = np.ones((1, 1, 1, 8)) * np.arange(8)
    found = keras.ops.convert_to_numpy(keras.ops.cast(layer(x), "float32"))
    standard = (kernel - kernel.mean((0, 1, 2))) / np.sqrt(
        kernel.var((0, 1, 2)) + 1e-10
    )
    wanted = np.arange(8) @ standard[0, 0]
    np.testing.assert_allclose(found[0, 0, 0], wanted, atol=0.3)
    assert layer(x).dtype == layer.compute_dtype


@pytest.mark.parametrize("size", [(8, 8), (7, 9)])
@pytest.mark.parametrize("kernel_size", [1, 3, 7])
@pytest.mark.parametrize("strides", [1, 2])
def test_convolution_pads_alike_on_every_side(size, kernel_size, strides):
    layer = layers.StdConv2D(2, kernel_size, strides=strides)
    x = np.random.default_rng(0).normal(size=(1, *size, 3)).astype("float32")
    found = layer(x).numpy()
    kernel = formulations.standardize(layer.kernel).numpy()
    pad = (kernel_size - 1) // 2
    padded = np.pad(x[0], ((pad, pad), (pad, pad), (0, 0)))
    for i in range(found.shape[1]):
        for j in range(found.shape[2]):
            top, left = i * strides, j * strides
            window = padded[top : top + kernel_size, left : left + kernel_size]
            wanted = np.tensordot(window, kernel, axes=3)
            np.testing.assert_allclose(found[0, i, j], wanted, atol=2e-4)
    assert found.shape == layer.compute_output_shape(x.shape)
