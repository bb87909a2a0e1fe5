"""The losses are their formulas, and valid for blended labels."""

import numpy as np
import pytest
import tensorflow as tf

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
        ([[0.0, 1.0, 1.0]], True),
        ([[1.0, 0.0, 1.0]], False),
        ([[0.3, 0.7, 0.0]], True),
        ([[0.7, 0.3, 0.0]], False),
    ):
        assert bool(losses.hits(tf.constant(labels), logits)[0]) == hit
