"""Exact evaluation: every example counts once, whatever the batch size."""

import dataclasses
import math
from collections.abc import Callable
from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from bit_tf import distribution
from bit_tf import losses

TOP_K = 5


def wilson_interval(
    correct: int, total: int, z: float = 1.959963984540054
) -> tuple[float, float]:
    """Returns the Wilson score interval of a proportion, 95 % by default.

    Unlike mean +- 1.96 sigma it stays in [0, 1] and has a width at 0 and 1
    (Wilson 1927, J. Am. Stat. Assoc. 22, eq. for the score test).
    """
    if total < 1:
        raise ValueError("an interval needs at least one example.")
    p = correct / total
    centre = p + z * z / (2 * total)
    spread = z * math.sqrt(p * (1 - p) / total + z * z / (4 * total * total))
    scale = 1 + z * z / total
    return max(0.0, (centre - spread) / scale), min(
        1.0, (centre + spread) / scale
    )


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Evaluation:
    """What a model said about each of N examples.

    Args:
        class_names: one per class.
        labels: (N,) true classes.
        predicted: (N,) classes of the largest logit.
        confidence: (N,) probability of the predicted class.
        label_probability: (N,) probability of the true class.
        in_top_k: (N,) 1 where the true class is among the five likeliest,
            else 0.
        losses: (N,) cross-entropies, nats.
    """

    class_names: Sequence[str]
    labels: np.ndarray
    predicted: np.ndarray
    confidence: np.ndarray
    label_probability: np.ndarray
    in_top_k: np.ndarray
    losses: np.ndarray

    @property
    def correct(self) -> np.ndarray:
        return self.predicted == self.labels

    def summary(self) -> dict:
        """Returns top1 with its 95 % interval, top5, loss and examples."""
        correct, total = int(self.correct.sum()), len(self.labels)
        low, high = wilson_interval(correct, total)
        return {
            "top1": correct / total,
            "top1_low": low,
            "top1_high": high,
            "top5": int(self.in_top_k.sum()) / total,
            "loss": float(self.losses.mean(dtype=np.float64)),
            "examples": total,
        }

    def per_class(self) -> list[dict]:
        """Returns name, examples, precision, recall and f1 of every class.

        A ratio without a denominator is None: the precision of a class that
        was never predicted, the recall of one without examples.
        """
        classes = len(self.class_names)
        examples = np.bincount(self.labels, minlength=classes)
        predicted = np.bincount(self.predicted, minlength=classes)
        hits = np.bincount(self.labels[self.correct], minlength=classes)
        rows = []
        for index, name in enumerate(self.class_names):
            n, p, h = map(int, (examples[index], predicted[index], hits[index]))
            rows.append(
                {
                    "name": name,
                    "examples": n,
                    "precision": h / p if p else None,
                    "recall": h / n if n else None,
                    "f1": 2 * h / (n + p) if n + p else None,
                }
            )
        return rows

    def confusion(self) -> np.ndarray:
        """Returns (classes, classes) counts: row true, column predicted."""
        classes = len(self.class_names)
        matrix = np.zeros((classes, classes), np.int64)
        np.add.at(matrix, (self.labels, self.predicted), 1)
        return matrix

    def confused_pairs(self, limit: int) -> list[tuple[str, str, int]]:
        """Returns the most frequent (true, predicted, count) mistakes."""
        wrong = ~self.correct
        pairs, counts = np.unique(
            np.stack([self.labels[wrong], self.predicted[wrong]], axis=1),
            axis=0,
            return_counts=True,
        )
        order = np.argsort(-counts, kind="stable")[:limit]
        return [
            (
                self.class_names[pairs[i, 0]],
                self.class_names[pairs[i, 1]],
                int(counts[i]),
            )
            for i in order
        ]


def evaluator(
    model: keras.Model,
    *,
    batches: Callable[[int, int], tf.data.Dataset],
    num_examples: int,
    class_names: Sequence[str],
    strategy: tf.distribute.Strategy,
    loss_name: str = "softmax",
) -> Callable[[], Evaluation]:
    """Prepares the evaluation of a model on one split.

    Args:
        model: images in [-1, 1] -> logits; may change between calls.
        batches: (index of a host, number of hosts) -> its parts of the
            batches of `data.for_evaluation`.
        num_examples: N.
        class_names: one per class.
        strategy: which devices share each batch.
        loss_name: what the model was trained with, one of `recipe.LOSSES`.

    Returns:
        A function that evaluates the model as it is then. It raises
        RuntimeError should an example not be seen exactly once.
    """

    def replica_step(images, targets, indices):
        logits = model(images, training=False)
        targets = tf.cast(targets, logits.dtype)
        probabilities = losses.probabilities(loss_name, logits)
        predicted = tf.argmax(logits, axis=-1, output_type=tf.int32)
        first = tf.argmax(targets, axis=-1, output_type=tf.int32)
        _, likeliest = tf.math.top_k(logits, min(TOP_K, len(class_names)))
        return {
            "index": indices,
            # Of several labels the one that was found, else the lowest.
            "labels": tf.where(losses.hits(targets, logits), predicted, first),
            "predicted": predicted,
            "confidence": tf.gather(probabilities, predicted, batch_dims=1),
            "label_probability": tf.reduce_max(
                probabilities * targets, axis=-1
            ),
            # A number: booleans cannot be gathered from several devices.
            "in_top_k": tf.cast(
                tf.reduce_max(
                    tf.gather(targets, likeliest, batch_dims=1), axis=-1
                ),
                tf.int32,
            ),
            "losses": losses.per_example(loss_name, targets, logits),
        }

    @tf.function
    def step(batch):
        outputs = strategy.run(replica_step, args=batch)
        return {
            name: strategy.gather(value, axis=0)
            for name, value in outputs.items()
        }

    def evaluate() -> Evaluation:
        rows = [
            {name: value.numpy() for name, value in step(batch).items()}
            for batch in distribution.distribute(strategy, batches)
        ]
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
        return Evaluation(
            class_names=class_names,
            **{name: values[order] for name, values in columns.items()},
        )

    return evaluate
