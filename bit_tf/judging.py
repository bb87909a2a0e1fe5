"""A classifier and labelled images -> how good it is."""

import dataclasses
import json
import pathlib
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


def read_class_map(path: str) -> dict[str, tuple[str, ...]]:
    """Reads which classes of a model a set's classes stand for.

    Raises:
        ValueError: it is not such a file.
    """
    try:
        found = json.loads(pathlib.Path(path).expanduser().read_text())
        return {
            name: tuple(
                part.strip()
                for part in (
                    value.split(";") if isinstance(value, str) else value
                )
            )
            for name, value in found.items()
        }
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise ValueError(
            f"class map {path} cannot be read ({error}): a JSON object of "
            "names is needed."
        ) from error


def mapped(
    examples: examples_lib.Images,
    classifier: classifier_lib.Classifier,
    class_map: dict[str, tuple[str, ...]],
) -> examples_lib.Examples:
    """Returns the images of mapped classes, any of whose classes is right.

    Args:
        examples: with one label each.
        classifier: the model.
        class_map: class of the set -> classes of the model.

    Raises:
        ValueError: a class that the model does not have, none that is mapped,
            or labels of another kind.
    """
    if (
        not isinstance(examples, examples_lib.Examples)
        or examples.is_multi_label
        or examples.is_number
        or classifier.head != "softmax"
    ):
        raise ValueError(
            "--class_map is for sets in memory with one label per image, and "
            "for models that give one."
        )
    number = {name: index for index, name in enumerate(classifier.class_names)}
    for name, targets in class_map.items():
        for target in targets:
            if target not in number:
                raise ValueError(
                    f"class map: {name!r} stands for {target!r}, which is not "
                    f"one of the model's {len(number)} classes."
                )
    known = [
        index
        for index, label in enumerate(examples.labels)
        if class_map.get(examples.class_names[label])
    ]
    if not known:
        raise ValueError(
            "class map: none of the set's classes is in it; they are "
            f"{', '.join(map(repr, examples.class_names[:3]))}, ..."
        )
    examples = examples.subset(np.array(known))
    targets = [
        [number[t] for t in class_map[examples.class_names[label]]]
        for label in examples.labels
    ]
    labels = np.full((len(known), max(map(len, targets))), -1, np.int32)
    for row, own in zip(labels, targets, strict=True):
        row[: len(own)] = own
    return dataclasses.replace(
        examples, labels=labels, class_names=tuple(classifier.class_names)
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
