"""Exact evaluation: every example counts once, whatever the batch size."""

import functools
import gc
from collections.abc import Callable
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from bit_tf import distribution
from bit_tf import losses
from bit_tf import outcomes

TOP_K = 5
# Logits of so many examples times classes are kept: 256 MB.
MAX_LOGITS = 2**26


def evaluator(
    predict: Callable[[tf.Tensor], tf.Tensor],
    *,
    batches: Callable[[int, int], tf.data.Dataset],
    num_examples: int,
    class_names: Sequence[str],
    strategy: tf.distribute.Strategy,
    loss_name: str = "softmax",
    several_labels: bool = False,
    target_mean: float = 0.0,
    target_scale: float = 1.0,
    progress: Callable[[int], None] = lambda done: None,
) -> Callable[[], outcomes.Outcome]:
    """Prepares the evaluation of a model on one split.

    Args:
        predict: images -> (B, outputs) logits; may change between calls.
        batches: (index of a host, number of hosts) -> its parts of the
            batches of `data.for_evaluation`.
        num_examples: N.
        class_names: one per output.
        strategy: which devices share each batch.
        loss_name: what the model was trained with, one of `recipe.LOSSES`.
        several_labels: whether an image may have several.
        target_mean: added to outputs that are numbers, after
        target_scale: by which they are multiplied.
        progress: called with the number of batches done.

    Returns:
        A function that evaluates the model as it is then. It raises
        RuntimeError should an example not be seen exactly once.
    """
    keeps_logits = num_examples * len(class_names) <= MAX_LOGITS

    def of_numbers(targets, outputs):
        return {
            "labels": targets[:, 0],
            "predicted": outputs[:, 0] * target_scale + target_mean,
        }

    def of_several_labels(targets, logits):
        found = {
            "hits": tf.cast(losses.hits(targets, logits), tf.int32),
            "losses": losses.per_example(loss_name, targets, logits),
        }
        # Of a distribution over all classes none is a yes or no.
        if keeps_logits and loss_name == "sigmoid":
            found["targets"] = tf.cast(targets, tf.int32)
            found["logits"] = logits
        return found

    def of_one_label(targets, logits):
        probabilities = losses.probabilities(loss_name, logits)
        labels = tf.argmax(targets, axis=-1, output_type=tf.int32)
        predicted = tf.argmax(logits, axis=-1, output_type=tf.int32)
        _, likeliest = tf.math.top_k(logits, min(TOP_K, len(class_names)))
        in_top_k = tf.reduce_any(likeliest == labels[:, None], axis=-1)
        found = {
            "labels": labels,
            "predicted": predicted,
            "confidence": tf.gather(probabilities, predicted, batch_dims=1),
            "label_probability": tf.gather(probabilities, labels, batch_dims=1),
            # A number: booleans cannot be gathered from several devices.
            "in_top_k": tf.cast(in_top_k, tf.int32),
            "losses": losses.per_example(loss_name, targets, logits),
        }
        # What a temperature is fitted to.
        if keeps_logits and loss_name == "softmax":
            found["logits"] = logits
        return found

    if loss_name == "squared":
        describe, outcome = of_numbers, outcomes.Numbers
    elif several_labels:
        describe, outcome = of_several_labels, outcomes.SeveralLabels
    else:
        describe, outcome = of_one_label, outcomes.OneLabel

    def replica_step(images, targets, indices):
        outputs = predict(images)
        return {
            "index": indices,
            **describe(tf.cast(targets, outputs.dtype), outputs),
        }

    @functools.partial(tf.function, autograph=False)
    def step(batch):
        outputs = strategy.run(replica_step, args=batch)
        return {
            name: strategy.gather(value, axis=0)
            for name, value in outputs.items()
        }

    def evaluate() -> outcomes.Outcome:
        rows = []
        for batch in distribution.distribute(strategy, batches):
            rows.append(
                {name: value.numpy() for name, value in step(batch).items()}
            )
            progress(len(rows))
        # The functions by which batches are read are circles: few objects to
        # Python, half a megabyte to TensorFlow. Left alone, they pile up.
        gc.collect()
        columns = {
            name: np.concatenate([row[name] for row in rows])
            for name in rows[0]
        }
        index = columns.pop("index")
        real = np.flatnonzero(index >= 0)
        order = real[np.argsort(index[real], kind="stable")]
        if not np.array_equal(index[order], np.arange(num_examples)):
            raise RuntimeError(
                f"{num_examples} examples should be evaluated once each, "
                f"{len(order)} rows came back."
            )
        return outcome(
            class_names=class_names,
            **{name: values[order] for name, values in columns.items()},
        )

    return evaluate
