"""Cross-entropies by name, and the probabilities that belong to them.

"softmax" is for images with one label: one distribution over all classes.
"sigmoid" is for images with several: one yes or no per class, summed over the
classes without re-weighting (google-research/big_transfer issue 29).
"squared" is for a number: half the squared error of the one output.
"""

from collections.abc import Sequence

import tensorflow as tf


def per_example(
    name: str,
    labels: tf.Tensor,
    logits: tf.Tensor,
    class_weights: Sequence[float] | None = None,
) -> tf.Tensor:
    """Returns the loss of every example, nats.

    Args:
        name: one of `recipe.LOSSES`.
        labels: (B, classes); rows sum to 1 for "softmax", and are 0 to 1 per
            class for "sigmoid". Blends of them, as mixup makes, are as good.
        logits: (B, classes).
        class_weights: (classes,) by which what the loss says of a label is
            multiplied: of a blend each part by its own. What "sigmoid" says of
            classes that an image does not have keeps its weight.

    Returns:
        (B,) in the dtype of the logits.
    """
    labels = tf.cast(labels, logits.dtype)
    if name == "squared":
        return 0.5 * tf.reduce_sum((logits - labels) ** 2, axis=-1)
    if name == "softmax":
        if class_weights is not None:
            labels *= tf.constant(class_weights, logits.dtype)
            # The function below wants rows that sum to 1.
            return -tf.reduce_sum(labels * tf.nn.log_softmax(logits), axis=-1)
        return tf.nn.softmax_cross_entropy_with_logits(labels, logits)
    if class_weights is not None:
        weights = tf.constant(class_weights, logits.dtype)
        terms = labels * weights * tf.nn.softplus(-logits)
        terms += (1 - labels) * tf.nn.softplus(logits)
        return tf.reduce_sum(terms, axis=-1)
    return tf.reduce_sum(
        tf.nn.sigmoid_cross_entropy_with_logits(labels, logits), axis=-1
    )


def probabilities(name: str, logits: tf.Tensor) -> tf.Tensor:
    """Returns (B, classes) probabilities of (B, classes) logits."""
    return {"softmax": tf.nn.softmax, "sigmoid": tf.nn.sigmoid}[name](logits)


def hits(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Returns (B,) booleans: the likeliest class is (one of) the labelled.

    Of an image without a label it is not.
    """
    predicted = tf.argmax(logits, axis=-1)
    largest = tf.reduce_max(labels, axis=-1)
    found = tf.gather(labels, predicted, batch_dims=1)
    return (found >= largest) & (largest > 0)
