"""Mixup: every example of a batch, blended with its neighbour."""

from typing import NamedTuple

import tensorflow as tf

from bit_tf import preprocessing


class Pairs(NamedTuple):
    """Images that are to be blended, still in bytes, as devices are sent them.

    Args:
        images: (B, H, W, 3) uint8.
        partners: the same, what each of them is blended with.
        weights: (B,) float32, of the images in the blends, all equal.
    """

    images: tf.Tensor
    partners: tf.Tensor
    weights: tf.Tensor


def paired(
    images: tf.Tensor,
    labels: tf.Tensor,
    *,
    alpha: float,
    seed: tf.Tensor,
    has_previous: bool = False,
) -> tuple[Pairs, tf.Tensor]:
    """Finds every example's partner and weight (Zhang et al., 1710.09412).

    One weight from Beta(alpha, alpha) for the whole batch, as in the authors'
    code. The partner is the previous example, not the mirrored position of
    the official TF2 code, whose pairs are symmetric: the batch would hold
    both blends of the same two images.

    Args:
        images: (B, H, W, 3) uint8.
        labels: (B, classes) floating point, rows that sum to 1.
        alpha: > 0.
        seed: shape (2,) integers.
        has_previous: whether this is a part of the batch with the example
            before it in front, which is a partner and not returned. Otherwise
            the last example is the first one's partner.

    Returns:
        What `blended` makes images of, and the labels, blended.
    """
    # Beta as a ratio of gammas, in float64: gamma(0.1) underflows float32.
    gammas = tf.random.stateless_gamma((2,), seed, alpha, dtype=tf.float64)
    weight = gammas[0] / tf.reduce_sum(gammas)

    def with_partners(values):
        if has_previous:
            return values[1:], values[:-1]
        return values, tf.roll(values, shift=1, axis=0)

    own, others = with_partners(labels)
    labels = _blend(own, others, tf.cast(weight, labels.dtype))
    weights = tf.fill(tf.shape(labels)[:1], tf.cast(weight, tf.float32))
    return Pairs(*with_partners(images), weights), labels


def blended(images: tf.Tensor | Pairs) -> tf.Tensor:
    """Returns images for the network, float32 in [-1, 1].

    Args:
        images: pairs; or images that are not to be blended, see
            `preprocessing.in_range`.
    """
    if not isinstance(images, Pairs):
        return preprocessing.in_range(images)
    own, others = (tf.cast(x, tf.float32) for x in images[:2])
    mixed = _blend(own, others, images.weights[0])
    return preprocessing.value_range(-1, 1)(mixed, None)


def _blend(values, others, weight):
    return weight * values + (1 - weight) * others
