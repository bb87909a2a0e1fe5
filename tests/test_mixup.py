"""Mixup blends images and labels alike, by weights that follow Beta."""

import numpy as np
import pytest
import tensorflow as tf

from bit_tf import mixup


def test_mixup_blends_images_and_labels_alike():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (6, 2, 2, 3)).astype(np.uint8)
    labels = np.eye(6)
    pairs, soft = mixup.paired(
        tf.constant(images),
        tf.constant(labels),
        alpha=1.0,
        seed=tf.constant([5, 6]),
    )
    # No more than that is sent to a device.
    assert pairs.images.dtype == pairs.partners.dtype == tf.uint8
    mixed = mixup.blended(pairs)
    images = images / 127.5 - 1
    weight = soft.numpy()[0, 0]
    assert 0.01 < weight < 0.99
    partner = np.roll(np.arange(6), 1)
    np.testing.assert_allclose(
        mixed, weight * images + (1 - weight) * images[partner], atol=1e-6
    )
    np.testing.assert_allclose(
        soft, weight * labels + (1 - weight) * labels[partner], atol=1e-12
    )


@pytest.mark.parametrize("alpha", [0.1, 1.0])
def test_mixup_weights_follow_beta(alpha):
    weights = np.array(
        [
            mixup.paired(
                tf.zeros((2, 1, 1, 3), tf.uint8),
                tf.eye(2, dtype=tf.float64),
                alpha=alpha,
                seed=tf.constant([n, 7]),
            )[1].numpy()[0, 0]
            for n in range(1500)
        ]
    )
    assert np.isfinite(weights).all()
    # Beta(a, a): mean 1/2, variance 1 / (4 (2a + 1)); 4 standard errors.
    variance = 1 / (4 * (2 * alpha + 1))
    assert abs(weights.mean() - 0.5) < 4 * np.sqrt(variance / 1500)
    assert weights.var() == pytest.approx(variance, rel=0.1)
