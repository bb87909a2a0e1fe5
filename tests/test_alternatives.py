"""Networks of other layers than BiT's, for comparisons with it."""

import functools
import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from bit_tf import alternatives
from bit_tf import distribution
from bit_tf import folding
from bit_tf import layers
from bit_tf import optimizer as optimizer_lib
from bit_tf import resnet_v2
from bit_tf import update
from bit_tf import weights
from tests import agreement
from tests import steps

NORMS = (layers.GroupNorm, alternatives.BatchNorm)
CONVOLUTIONS = (layers.StdConv2D, alternatives.PlainConv2D)
every_pair = pytest.mark.parametrize(
    ("norm", "convolution"), list(itertools.product(NORMS, CONVOLUTIONS))
)


def build(norm, convolution, **kwargs):
    with steps.there_is_r14():
        return resnet_v2.build(
            "R14x0.5", 3, norm=norm, convolution=convolution, **kwargs
        )


def images(count=4, side=32):
    rng = np.random.default_rng(0)
    return rng.uniform(-1, 1, (count, side, side, 3)).astype(np.float32)


def with_random_head(model):
    head = model.get_layer("head").conv.kernel
    head.assign(np.random.default_rng(1).normal(size=head.shape) * 0.1)
    return model


def assert_close(found, wanted):
    assert agreement.relative_error(found, wanted) < agreement.ROUNDING


def test_a_plain_convolution_of_standardised_kernels_is_bit():
    bit = with_random_head(build(NORMS[0], CONVOLUTIONS[0]))
    plain = build(NORMS[0], CONVOLUTIONS[1])
    values = folding.values_of(bit)
    for variable in plain.variables:
        variable.assign(values[variable.path])
    assert_close(plain(images()), bit(images()))
    # Its own are not standardised once more.
    for path, value in folding.values_of(plain).items():
        np.testing.assert_array_equal(value, values[path])


def test_a_batch_is_normalised_and_what_it_was_is_remembered():
    model = build(alternatives.BatchNorm, layers.StdConv2D)
    unit = model.get_layer("block1").units[0]
    root = model.endpoints["root_block"]
    seen = keras.Model(model.input, root)(images()).numpy()
    model(images(), training=True)
    mean, variance = seen.mean((0, 1, 2)), seen.var((0, 1, 2))
    np.testing.assert_allclose(
        unit.norm_a.moving_mean, 0.1 * mean, rtol=1e-4, atol=1e-6
    )
    np.testing.assert_allclose(
        unit.norm_a.moving_variance, 0.9 + 0.1 * variance, rtol=2e-3
    )
    # An image alone is then what it is among others.
    with_random_head(model)
    together = model(images(), training=False).numpy()
    alone = model(images()[:1], training=False).numpy()
    assert_close(alone, together[:1])
    differs = np.abs(model(images()[:1], training=True) - together[:1])
    assert differs.max() > 1e-3 * np.abs(together).max()


@pytest.mark.thorough
@every_pair
def test_it_learns(norm, convolution):
    model = build(norm, convolution)
    optimizer = optimizer_lib.Momentum(0.05)
    optimizer.build(model.trainable_variables)
    run = update.compiled(
        model,
        optimizer,
        batch_size=4,
        strategy=distribution.build("one_device"),
    )
    labels = tf.one_hot([0, 1, 2, 0], 3)
    batches = iter(tf.data.Dataset.from_tensors((images(), labels)).repeat())
    losses = [run(batches, 1).loss for _ in range(8)]
    assert losses[-1] < 0.8 * losses[0]
    moved = [v for v in model.variables if "moving_mean" in v.path]
    assert bool(moved) == (norm is alternatives.BatchNorm)
    assert all(np.any(np.array(v) != 0) for v in moved)


def test_what_cannot_be_is_refused(tmp_path):
    with pytest.raises(ValueError, match="remat=True is not for"):
        build(alternatives.BatchNorm, layers.StdConv2D, remat=True)
    for norm in (
        functools.partial(layers.GroupNorm, groups=16),
        keras.layers.LayerNormalization,
    ):
        with pytest.raises(ValueError, match="norm=.*register_keras"):
            build(norm, layers.StdConv2D)
    model = build(layers.GroupNorm, alternatives.PlainConv2D)
    with pytest.raises(ValueError, match="can be saved as .keras alone"):
        weights.save(tmp_path / "weights.npz", model)


def test_a_summary_shows_the_layers_within(capsys):
    build(*NORMS[:1], *CONVOLUTIONS[:1]).summary(expand_nested=True)
    assert "block1" in capsys.readouterr().out


@every_pair
def test_it_is_saved_with_its_layers(norm, convolution, tmp_path):
    model = with_random_head(build(norm, convolution))
    model(images(), training=True)
    model.save(tmp_path / "model.keras")
    with steps.there_is_r14():
        found = keras.saving.load_model(tmp_path / "model.keras")
    unit = found.get_layer("block2").units[0]
    assert type(unit.norm_b) is norm and type(unit.conv_b) is convolution
    assert_close(
        found(images(), training=False), model(images(), training=False)
    )
