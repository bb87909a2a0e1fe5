"""Many image files through a classifier, in order and in batches."""

import concurrent.futures
import dataclasses
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from bit_tf import classifier as classifier_lib
from bit_tf import image_file
from bit_tf import losses

# Read ahead of the network, in batches.
_AHEAD = 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prediction:
    """What was said of one file.

    Args:
        name: of the file, as it was given.
        classes: the likeliest first.
        probabilities: of the classes; of a number itself instead.
        features: (features,) pre-logits, if they were asked for.
        error: why the file could not be used; the rest is empty then.
    """

    name: str
    classes: Sequence[str] = ()
    probabilities: Sequence[float] = ()
    features: np.ndarray | None = None
    error: str = ""


def predict(
    classifier: classifier_lib.Classifier,
    names: Sequence[str],
    *,
    top_k: int = 5,
    batch_size: int = 32,
    features: bool = False,
    reading: image_file.Reading | None = None,
    progress: Callable[[int], None] = lambda done: None,
) -> Iterator[Prediction]:
    """Yields a prediction for every file, in order.

    Args:
        classifier: what says it.
        names: of the files.
        top_k: how many classes to tell.
        batch_size: images that the network sees at once.
        features: whether to tell the pre-logits.
        reading: how the files are read; with `on_bad` "fail" the first that
            cannot be used is an error.
        progress: called with the number of files done.

    Raises:
        ValueError: a file cannot be used, see `reading`.
    """
    reading = reading or image_file.Reading(on_bad="skip")
    batches = [
        names[begin : begin + batch_size]
        for begin in range(0, len(names), batch_size)
    ]
    top_k = min(top_k, len(classifier.class_names))
    done = 0
    with concurrent.futures.ThreadPoolExecutor() as pool:

        def begin(batch):
            return [
                pool.submit(classifier.read, name, reading) for name in batch
            ]

        waiting = [begin(batch) for batch in batches[:_AHEAD]]
        for index, batch in enumerate(batches):
            if index + _AHEAD < len(batches):
                waiting.append(begin(batches[index + _AHEAD]))
            read = [future.result() for future in waiting.pop(0)]
            for name, found in zip(batch, read, strict=True):
                if isinstance(found, str) and reading.on_bad == "fail":
                    raise ValueError(
                        f"{name} cannot be used ({found}): mend or remove it, "
                        "or give --on_bad_image=skip."
                    )
            yield from _of_batch(
                classifier, batch, read, batch_size, top_k, features
            )
            done += len(batch)
            progress(done)


def _of_batch(
    classifier, names, read, batch_size, top_k, with_features
) -> Iterator[Prediction]:
    good = [found for found in read if not isinstance(found, str)]
    rows = iter(())
    if good:
        # Of one size always: another would be compiled anew.
        missing = batch_size - len(good)
        images = tf.stack(good + [tf.zeros_like(good[0])] * missing)
        outputs = classifier.logits(images)
        features = classifier.features(images) if with_features else outputs
        rows = zip(outputs.numpy(), features.numpy(), strict=True)
    for name, found in zip(names, read, strict=True):
        if isinstance(found, str):
            yield Prediction(name=name, error=found)
            continue
        logits, pre_logits = next(rows)
        own = pre_logits if with_features else None
        if classifier.head == "squared":
            yield Prediction(
                name=name,
                classes=classifier.class_names,
                probabilities=[float(logits[0])],
                features=own,
            )
            continue
        probabilities = losses.probabilities(classifier.head, logits).numpy()
        likeliest = np.argsort(-probabilities, kind="stable")[:top_k]
        yield Prediction(
            name=name,
            classes=[classifier.class_names[i] for i in likeliest],
            probabilities=[float(probabilities[i]) for i in likeliest],
            features=own,
        )
