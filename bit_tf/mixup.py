"""Mixup: every example of a batch, blended with its neighbour."""

import tensorflow as tf


def blended(
    images: tf.Tensor,
    labels: tf.Tensor,
    *,
    alpha: float,
    seed: tf.Tensor,
    has_previous: bool = False,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Blends every example with its neighbour (Zhang et al., 1710.09412).

    One weight from Beta(alpha, alpha) for the whole batch, as in the authors'
    code. The partner is the previous example, not the mirrored position of
    the official TF2 code, whose pairs are symmetric: the batch would hold
    both blends of the same two images.

    Args:
        images: (B, H, W, 3) floating point.
        labels: (B, classes) floating point, rows that sum to 1.
        alpha: > 0.
        seed: shape (2,) integers.
        has_previous: whether this is a part of the batch with the example
            before it in front, which is blended and not returned. Otherwise
            the last example is the first one's partner.

    Returns:
        The blended images and labels, in the dtypes given.
    """
    # Beta as a ratio of gammas, in float64: gamma(0.1) underflows float32.
    gammas = tf.random.stateless_gamma((2,), seed, alpha, dtype=tf.float64)
    weight = gammas[0] / tf.reduce_sum(gammas)

    def blend(values):
        own = tf.cast(weight, values.dtype)
        if has_previous:
            values, previous = values[1:], values[:-1]
        else:
            previous = tf.roll(values, shift=1, axis=0)
        return own * values + (1 - own) * previous

    return blend(images), blend(labels)
