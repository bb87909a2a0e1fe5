"""What each way to get BiT almost right does to the logits.

Every line that other implementations have got wrong is turned wrong here, to
see that the comparisons with timm and transformers would notice. The sizes are
relative to the largest logit, for R50x1 with random weights at 128 pixels, and
agree with those that were measured between the implementations themselves.
"""

import keras
import numpy as np
import pytest
from keras import ops

from bit_tf import blocks
from bit_tf import formulations
from bit_tf import layers
from bit_tf import resnet_v2
from tests import agreement
from tests import published
from tests.parity import test_timm

pytestmark = pytest.mark.parity


def standardize_with(*, epsilon=1e-10, on_deviation=False, unbiased=False):
    def standardize(kernel):
        count = int(np.prod(kernel.shape[:3]))
        centred = kernel - ops.mean(kernel, axis=(0, 1, 2), keepdims=True)
        variance = ops.mean(ops.square(centred), axis=(0, 1, 2), keepdims=True)
        if unbiased:
            variance = variance * count / (count - 1)
        if on_deviation:
            return centred / (ops.sqrt(variance) + epsilon)
        return centred / ops.sqrt(variance + epsilon)

    return lambda patch: patch.setattr(formulations, "standardize", standardize)


def same_padding(kernel_size):
    """TensorFlow's "SAME" in the strided convolutions of one size."""

    def turn_on(patch):
        right = formulations.convolve

        def convolve(images, kernel, strides):
            if (kernel.shape[0], strides) != (kernel_size, 2):
                return right(images, kernel, strides)
            return ops.conv(images, kernel, strides=2, padding="same")

        patch.setattr(formulations, "convolve", convolve)

    return turn_on


def pool_with(pad):
    def turn_on(patch):
        patch.setattr(
            blocks.RootBlock,
            "call",
            lambda self, inputs: pad(self.conv(inputs)),
        )

    return turn_on


def pool_same(x):
    return ops.max_pool(x, pool_size=3, strides=2, padding="same")


def pool_minus_infinity(x):
    sides = ((0, 0), (1, 1), (1, 1), (0, 0))
    x = ops.pad(x, sides, constant_values=-np.inf)
    return ops.max_pool(x, pool_size=3, strides=2, padding="valid")


def project_raw_input(patch):
    def call(self, inputs):
        shortcut = inputs if self.proj is None else self.proj(inputs)
        x = self.conv_a(ops.relu(self.norm_a(inputs)))
        x = self.conv_b(ops.relu(self.norm_b(x)))
        return self.conv_c(ops.relu(self.norm_c(x))) + shortcut

    patch.setattr(blocks.BottleneckUnit, "call", call)


def norm_epsilon(value):
    def turn_on(patch):
        right = layers.GroupNorm.arguments

        patch.setattr(
            layers.GroupNorm,
            "arguments",
            property(lambda self: {**right.fget(self), "epsilon": value}),
        )

    return turn_on


# What is turned on, and the difference that was measured elsewhere.
TRAPS = {
    "ws epsilon 1e-8 on the variance (timm)": (
        standardize_with(epsilon=1e-8),
        2.5e-5,
    ),
    "ws epsilon 1e-6 on the variance": (standardize_with(epsilon=1e-6), 1.6e-3),
    "ws epsilon 1e-5 on the variance": (standardize_with(epsilon=1e-5), 1.6e-2),
    "ws epsilon 1e-5 on the deviation": (
        standardize_with(epsilon=1e-5, on_deviation=True),
        5e-4,
    ),
    "ws unbiased variance": (standardize_with(unbiased=True), 3e-3),
    "pool padded with -inf": (pool_with(pool_minus_infinity), 5e-3),
    "SAME in the root convolution": (same_padding(7), 0.53),
    "SAME in the strided 3x3": (same_padding(3), 0.58),
    "SAME in the pool": (pool_with(pool_same), 0.52),
    "projection of the raw input": (project_raw_input, 0.69),
    "group norm epsilon 1e-3 (Keras)": (norm_epsilon(1e-3), 1.3e-4),
}
# Small enough to pass in float32; test_gradients_agree, in float64, sees it.
BELOW_FLOAT32 = {"ws epsilon 1e-8 on the variance (timm)"}


@pytest.fixture(scope="module")
def network():
    model = resnet_v2.build("R50x1", 21)
    arrays = published.arrays("R50x1", 21)
    rng = np.random.default_rng(1)
    for v in model.variables:
        value = arrays[v.path]
        if v.path.endswith("standardized_conv2d/kernel"):
            # Variances of 4e-5 to 3e-3, as in the measurement repeated here.
            fan_in = np.prod(v.shape[:-1])
            value = rng.normal(0, np.sqrt(0.2 / fan_in), v.shape)
        v.assign(value)
    images = rng.uniform(-1, 1, (4, 128, 128, 3)).astype(np.float32)
    return model, images, model(images).numpy()


@pytest.mark.parametrize("trap", TRAPS)
def test_every_trap_is_seen(trap, network, monkeypatch):
    model, images, right = network
    turn_on, elsewhere = TRAPS[trap]
    turn_on(monkeypatch)
    found = agreement.relative_error(model(images), right)
    print(f"{trap}: {found:.1e}, elsewhere {elsewhere:.1e}")
    if trap not in BELOW_FLOAT32:
        assert found > test_timm.SHALLOW_TOLERANCE
    assert elsewhere / 4 < found < elsewhere * 4


def test_without_a_trap_there_is_only_rounding(network):
    model, images, right = network
    wide = resnet_v2.build("R50x1", 21, dtype="float64")
    wide.set_weights(model.get_weights())
    exact = wide(images.astype(np.float64)).numpy()
    found = agreement.relative_error(right, exact)
    print(f"float32 against float64: {found:.1e}")
    assert found < 2e-5
    keras.utils.clear_session()
