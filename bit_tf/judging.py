"""A classifier and labelled images -> how good it is."""

import dataclasses
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from bit_tf import classifier as classifier_lib
from bit_tf import data
from bit_tf import evaluation
from bit_tf import examples as examples_lib
from bit_tf import outcomes

# A logit that is never the largest, and whose probability is zero.
_BARRED = -1e9


def matched(
    examples: examples_lib.Images,
    classifier: classifier_lib.Classifier,
    *,
    by_name: bool = True,
) -> examples_lib.Images:
    """Returns the images with their labels numbered as the model's outputs.

    Args:
        examples: whose classes are some of the model's.
        classifier: the model.
        by_name: whether classes are the same if they are called the same;
            otherwise the first is the first, and both have as many.

    Raises:
        ValueError: the set has a class that the model has not, or labels of
            another kind.
    """
    names = list(classifier.class_names)
    is_number = getattr(examples, "is_number", False)
    if is_number != (classifier.head == "squared"):
        raise ValueError(
            f"the model gives {_kind(classifier.head == 'squared')}, and the "
            f"labels are {_kind(is_number)}: give another --model or --target."
        )
    if is_number:
        return examples
    one_answer = examples.is_multi_label and classifier.head == "softmax"
    if one_answer and isinstance(examples, examples_lib.Examples):
        # Any of several is right (Beyer et al., 2006.07159); of an image
        # without a label no answer is.
        has_label = (examples.labels >= 0).any(axis=1)
        examples = examples.subset(np.flatnonzero(has_label))
    if tuple(examples.class_names) == tuple(names):
        return examples
    if not by_name:
        if len(names) != len(examples.class_names):
            raise ValueError(
                f"the model has {len(names)} classes and the set "
                f"{len(examples.class_names)}: --match_classes=order needs as "
                "many."
            )
        return dataclasses.replace(examples, class_names=tuple(names))
    missing = [name for name in examples.class_names if name not in names]
    if missing:
        raise ValueError(
            f"class {missing[0]!r} of the set is not one of the model's "
            f"{len(names)} ({', '.join(map(repr, names[:3]))}, ...); "
            f"{len(missing)} are not. Where the order is the same give "
            "--match_classes=order."
        )
    if not isinstance(examples, examples_lib.Examples):
        raise ValueError(
            "the set's classes are in another order than the model's, and its "
            "labels can only be read as they are: give --match_classes=order "
            "if it is the same."
        )
    number = np.array([names.index(name) for name in examples.class_names])
    labels = np.where(examples.labels >= 0, number[examples.labels], -1)
    return dataclasses.replace(
        examples, labels=labels.astype(np.int32), class_names=tuple(names)
    )


def _kind(is_number: bool) -> str:
    return "numbers" if is_number else "classes"


def judge(
    classifier: classifier_lib.Classifier,
    examples: examples_lib.Images,
    *,
    batch_size: int = 32,
    only_present: bool = False,
    progress: Callable[[int], None] = lambda done: None,
) -> outcomes.Outcome:
    """Evaluates a classifier on this machine's first device.

    Args:
        classifier: the model.
        examples: labels numbered as its outputs, see `matched`.
        batch_size: images at once.
        only_present: whether classes that no example has are no answers.
        progress: called with the number of images done.

    Raises:
        ValueError: `only_present`, of labels that have not been counted.
    """
    predict = classifier.logits
    if only_present:
        counts = examples.class_counts()
        if counts is None:
            raise ValueError(
                "--only_present_classes needs labels that have been counted, "
                "which those of this set have not: it is too large."
            )
        barred = tf.constant(np.where(counts > 0, 0.0, _BARRED), tf.float32)

        def predict(images):
            return classifier.logits(images) + barred

    def batches(host: int, hosts: int) -> tf.data.Dataset:
        del host, hosts
        dataset = data.for_evaluation(
            examples,
            preprocessing=classifier.preprocess_text,
            crop=classifier.crop,
            batch_size=batch_size,
        )
        return dataset

    evaluate = evaluation.evaluator(
        predict,
        batches=batches,
        num_examples=len(examples),
        class_names=classifier.class_names,
        strategy=tf.distribute.get_strategy(),
        loss_name=classifier.head,
        several_labels=examples.is_multi_label,
        progress=lambda done: progress(min(done * batch_size, len(examples))),
    )
    return evaluate()
