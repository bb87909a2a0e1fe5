"""The losses are their formulas, and valid for blended labels."""

import numpy as np
import pytest
import tensorflow as tf

from bit_tf import imbalance
from bit_tf import losses

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(0, 3, (6, 5))
ONE = np.eye(5)[[0, 3, 3, 1, 4, 2]]
SEVERAL = (RNG.uniform(size=(6, 5)) < 0.4).astype(float)
BLENDED = 0.3 * SEVERAL + 0.7 * np.roll(SEVERAL, 1, axis=0)


def softmax(x):
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def test_softmax_is_minus_the_log_of_the_labels_probability():
    found = losses.per_example("softmax", ONE, tf.constant(LOGITS))
    wanted = -np.log(softmax(LOGITS)[ONE == 1])
    np.testing.assert_allclose(found, wanted)


@pytest.mark.parametrize("labels", [ONE, SEVERAL, BLENDED])
def test_sigmoid_is_a_yes_or_no_per_class_summed(labels):
    found = losses.per_example("sigmoid", labels, tf.constant(LOGITS))
    p = sigmoid(LOGITS)
    wanted = -(labels * np.log(p) + (1 - labels) * np.log(1 - p)).sum(axis=-1)
    np.testing.assert_allclose(found, wanted)


def test_probabilities_belong_to_the_loss():
    for name, formula in (("softmax", softmax), ("sigmoid", sigmoid)):
        found = losses.probabilities(name, tf.constant(LOGITS))
        np.testing.assert_allclose(found, formula(LOGITS))


def test_any_of_several_labels_is_a_hit():
    logits = tf.constant([[1.0, 3.0, 2.0]])
    for labels, hit in (
        ([[0.0, 1.0, 0.0]], True),
        ([[0.0, 0.0, 0.0]], False),
        ([[0.0, 1.0, 1.0]], True),
        ([[1.0, 0.0, 1.0]], False),
        ([[0.3, 0.7, 0.0]], True),
        ([[0.7, 0.3, 0.0]], False),
    ):
        assert bool(losses.hits(tf.constant(labels), logits)[0]) == hit


WEIGHTS = [0.5, 2.0, 1.0, 0.0, 3.0]


@pytest.mark.parametrize("labels", [ONE, 0.3 * ONE + 0.7 * np.roll(ONE, 1, 0)])
def test_classes_are_weighted_by_their_share_of_a_label(labels):
    found = losses.per_example("softmax", labels, tf.constant(LOGITS), WEIGHTS)
    wanted = -(labels * WEIGHTS * np.log(softmax(LOGITS))).sum(axis=-1)
    np.testing.assert_allclose(found, wanted)


@pytest.mark.parametrize("labels", [SEVERAL, BLENDED])
def test_of_several_labels_those_there_are_weighted(labels):
    found = losses.per_example("sigmoid", labels, tf.constant(LOGITS), WEIGHTS)
    p = sigmoid(LOGITS)
    wanted = -(labels * WEIGHTS * np.log(p) + (1 - labels) * np.log(1 - p)).sum(
        axis=-1
    )
    np.testing.assert_allclose(found, wanted)


@pytest.mark.parametrize("name", ["softmax", "sigmoid"])
def test_weights_of_one_change_nothing(name):
    found = losses.per_example(name, ONE, tf.constant(LOGITS), np.ones(5))
    np.testing.assert_allclose(
        found, losses.per_example(name, ONE, tf.constant(LOGITS))
    )


def test_a_number_is_off_by_its_square():
    found = losses.per_example(
        "squared", tf.constant([[1.0], [2.0]]), tf.constant([[4.0], [2.0]])
    )
    np.testing.assert_allclose(found, [4.5, 0])


@pytest.mark.parametrize("kind", ["balanced", "effective"])
def test_rare_classes_weigh_more_and_the_mean_is_one(kind):
    counts = np.array([1000, 100, 10, 0])
    found = imbalance.weights(kind, counts)
    assert found[0] < found[1] < found[2] and found[3] == 0
    assert (found * counts).sum() == pytest.approx(counts.sum())
    if kind == "balanced":
        np.testing.assert_allclose(found[:3] * counts[:3], 370)
    else:
        # (1 - b^n) / (1 - b) at b = 0.999 is 632.3, 95.2 and 9.96.
        ratio = found[2] / found[0]
        assert ratio == pytest.approx(632.3 / 9.955, rel=1e-3)


def test_no_weights():
    assert imbalance.weights("none", None) is None
