"""Momentum is the paper's, and the rate is that of the published code."""

import keras
import numpy as np
import pytest

from bit_tf import optimizer as optimizer_lib
from bit_tf import recipe as recipe_lib

RECIPE = recipe_lib.Recipe(
    name="test",
    total_steps=500,
    batch_size=8,
    base_lr=0.003,
    warmup_steps=100,
    decay_steps=(200, 300, 400),
    crop=8,
)


# bit_hyperrule.get_lr of the official code, as measured there.
@pytest.mark.parametrize(
    ("step", "rate"),
    [
        (0, 0.0),
        (1, 0.003 / 100),
        (50, 0.0015),
        (99, 0.003 * 0.99),
        (100, 0.003),
        (200, 0.003),
        (201, 0.0003),
        (300, 0.0003),
        (301, 0.00003),
        (400, 0.00003),
        (401, 0.000003),
        (499, 0.000003),
    ],
)
def test_rate_at_step(step, rate):
    found = float(optimizer_lib.schedule(RECIPE)(step))
    assert found == pytest.approx(rate, rel=1e-12)


def test_without_warmup_the_first_rate_is_the_base():
    schedule = optimizer_lib.StaircaseWithWarmup(
        base_lr=0.1, warmup_steps=0, decay_steps=(5,), decay_factor=0.1
    )
    assert float(schedule(0)) == pytest.approx(0.1)


def numpy_momentum(weight, gradients, rates, momentum, decay):
    """The paper's rule: v = m v + g; w -= rate v."""
    velocity = np.zeros_like(weight)
    for gradient, rate in zip(gradients, rates, strict=True):
        velocity = momentum * velocity + gradient + decay * weight
        weight = weight - rate * velocity
    return weight


@pytest.mark.parametrize("decay", [0.0, 0.01])
def test_updates_equal_numpy_across_drops_of_the_rate(decay):
    rng = np.random.default_rng(0)
    start = rng.normal(size=(3, 4))
    gradients = rng.normal(size=(12, 3, 4))
    schedule = optimizer_lib.StaircaseWithWarmup(
        base_lr=0.1, warmup_steps=3, decay_steps=(5, 8), decay_factor=0.1
    )
    optimizer = optimizer_lib.Momentum(
        schedule, momentum=0.9, weight_decay=decay
    )
    weight = keras.Variable(start, dtype="float64", name="kernel")
    optimizer.build([weight])
    for gradient in gradients:
        optimizer.apply([keras.ops.convert_to_tensor(gradient, "float64")])
    rates = [0, 0.1 / 3, 0.2 / 3] + [0.1] * 3 + [0.01] * 3 + [0.001] * 3
    wanted = numpy_momentum(start, gradients, rates, 0.9, decay)
    # float64 throughout; the two differ by the order of a few additions.
    np.testing.assert_allclose(weight.numpy(), wanted, rtol=1e-12)


def test_only_kernels_decay():
    optimizer = optimizer_lib.Momentum(0.1, weight_decay=0.5)
    kernel = keras.Variable([1.0], name="kernel")
    gamma = keras.Variable([1.0], name="gamma")
    optimizer.build([kernel, gamma])
    optimizer.apply([keras.ops.zeros((1,)), keras.ops.zeros((1,))])
    assert kernel.numpy()[0] == pytest.approx(0.95)
    assert gamma.numpy()[0] == 1.0


@pytest.mark.parametrize(
    ("on", "left"), [("kernels", (0.5, 1.0)), ("all", (0.5, 0.5))]
)
def test_what_decays_can_be_chosen(on, left):
    optimizer = optimizer_lib.Momentum(
        1.0, weight_decay=0.5, weight_decay_on=on
    )
    variables = [keras.Variable([1.0], name=n) for n in ("kernel", "gamma")]
    optimizer.build(variables)
    optimizer.apply([keras.ops.zeros((1,))] * 2)
    assert tuple(float(v.numpy()[0]) for v in variables) == left


def test_decoupled_decay_follows_the_schedule_and_not_the_rate():
    rng = np.random.default_rng(0)
    start, gradients = rng.normal(size=(3, 4)), rng.normal(size=(9, 3, 4))
    schedule = optimizer_lib.StaircaseWithWarmup(
        base_lr=0.2, warmup_steps=2, decay_steps=(4,), decay_factor=0.1
    )
    optimizer = optimizer_lib.Momentum(
        schedule,
        weight_decay=0.01,
        weight_decay_kind="decoupled",
        base_lr=0.2,
    )
    weight = keras.Variable(start, dtype="float64", name="kernel")
    optimizer.build([weight])
    for gradient in gradients:
        optimizer.apply([keras.ops.convert_to_tensor(gradient, "float64")])
    # Loshchilov & Hutter, algorithm 1: eta (alpha m + lambda w).
    wanted, velocity = start, np.zeros_like(start)
    shares = [0, 0.5, 1, 1, 1, 0.1, 0.1, 0.1, 0.1]
    for gradient, eta in zip(gradients, shares, strict=True):
        velocity = 0.9 * velocity + gradient
        wanted = wanted - eta * (0.2 * velocity + 0.01 * wanted)
    np.testing.assert_allclose(weight.numpy(), wanted, rtol=1e-12)


@pytest.mark.parametrize("kind", ["l2", "decoupled"])
def test_decay_may_pull_to_where_the_weights_started(kind):
    rng = np.random.default_rng(0)
    start, gradients = rng.normal(size=(3, 4)), rng.normal(size=(5, 3, 4))
    optimizer = optimizer_lib.Momentum(
        # Exact in the float32 that Keras keeps the rate in.
        0.125,
        momentum=0.0,
        weight_decay=0.2,
        weight_decay_kind=kind,
        weight_decay_to="start",
        base_lr=0.125,
    )
    weight = keras.Variable(start, dtype="float64", name="kernel")
    optimizer.build([weight])
    optimizer.start([weight])
    wanted = start
    for gradient in gradients:
        optimizer.apply([keras.ops.convert_to_tensor(gradient, "float64")])
        rate = 0.125 if kind == "l2" else 1.0
        wanted = wanted - 0.125 * gradient - rate * 0.2 * (wanted - start)
    np.testing.assert_allclose(weight.numpy(), wanted, rtol=1e-12)


def test_optimizer_survives_serialization():
    optimizer = optimizer_lib.build(RECIPE)
    again = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert again.get_config() == optimizer.get_config()
    assert again.momentum == 0.9
