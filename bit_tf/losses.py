"""Cross-entropies by name, and the probabilities that belong to them.

"softmax" is for images with one label: one distribution over all classes.
"sigmoid" is for images with several: one yes or no per class, summed over the
classes without re-weighting (google-research/big_transfer issue 29).
"""

import tensorflow as tf


def per_example(name: str, labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Returns the loss of every example, nats.

    Args:
        name: one of `recipe.LOSSES`.
        labels: (B, classes); rows sum to 1 for "softmax", and are 0 to 1 per
            class for "sigmoid". Blends of them, as mixup makes, are as good.
        logits: (B, classes).

    Returns:
        (B,) in the dtype of the logits.
    """
    labels = tf.cast(labels, logits.dtype)
    if name == "softmax":
        return tf.nn.softmax_cross_entropy_with_logits(labels, logits)
    return tf.reduce_sum(
        tf.nn.sigmoid_cross_entropy_with_logits(labels, logits), axis=-1
    )


def probabilities(name: str, logits: tf.Tensor) -> tf.Tensor:
    """Returns (B, classes) probabilities of (B, classes) logits."""
    return {"softmax": tf.nn.softmax, "sigmoid": tf.nn.sigmoid}[name](logits)


def hits(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Returns (B,) booleans: the likeliest class is (one of) the labelled."""
    predicted = tf.argmax(logits, axis=-1)
    return tf.gather(labels, predicted, batch_dims=1) >= tf.reduce_max(
        labels, axis=-1
    )
