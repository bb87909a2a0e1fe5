"""Metrics are exact and independent of how the work was divided."""

import dataclasses
import gc

import numpy as np
import pytest
import tensorflow as tf

from bit_tf import data
from bit_tf import distribution
from bit_tf import evaluation as evaluation_lib
from bit_tf import outcomes
from bit_tf import resnet_v2
from tests import agreement
from tests import batches as batches_lib
from tests.test_data import make_examples
from tests.test_data import make_recipe


def make_evaluation():
    return outcomes.OneLabel(
        class_names=("a", "b", "c", "d"),
        labels=np.array([0, 0, 0, 1, 1, 2]),
        predicted=np.array([0, 0, 1, 1, 0, 1]),
        confidence=np.full(6, 0.5),
        label_probability=np.full(6, 0.4),
        in_top_k=np.array([True] * 5 + [False]),
        losses=np.arange(6.0),
    )


def test_summary_counts():
    summary = make_evaluation().summary()
    assert summary["top1"] == 0.5
    assert summary["top5"] == pytest.approx(5 / 6)
    assert summary["loss"] == 2.5
    assert summary["examples"] == 6
    assert summary["top1_low"] < 0.5 < summary["top1_high"]


def test_per_class_numbers_by_hand():
    a, b, c, d = make_evaluation().per_class()
    assert (a["examples"], a["recall"], a["precision"]) == (3, 2 / 3, 2 / 3)
    assert (b["recall"], b["precision"], b["f1"]) == (1 / 2, 1 / 3, 2 / 5)
    assert (c["recall"], c["precision"], c["f1"]) == (0, None, 0)
    assert (d["recall"], d["precision"], d["f1"]) == (None, None, None)


def test_confusion_by_hand():
    assert make_evaluation().confusion().tolist() == [
        [2, 1, 0, 0],
        [1, 1, 0, 0],
        [0, 1, 0, 0],
        [0, 0, 0, 0],
    ]
    assert make_evaluation().confused_pairs(2) == [
        ("a", "b", 1),
        ("b", "a", 1),
    ]


def predictions(model):
    return lambda images: model(images, training=False)


@pytest.fixture(scope="module")
def results():
    """The same 11 images, in different batches and on two devices."""
    recipe = make_recipe(crop=32, resize=32)
    examples = make_examples(11, side=32)
    found = {}
    for name, batch_size in (
        ("one_device", 4),
        ("one_device", 64),
        ("mirrored", 6),
    ):
        strategy = distribution.build(name)
        with strategy.scope():
            model = resnet_v2.build("R26x0.5", 3, seed=1)
            head = model.get_layer("head").conv.kernel
            rng = np.random.default_rng(0)
            head.assign(rng.normal(size=head.shape))
        found[name, batch_size] = evaluation_lib.evaluator(
            predictions(model),
            batches=lambda host, hosts, size=batch_size: (
                batches_lib.for_evaluation(
                    examples,
                    recipe,
                    batch_size=size,
                    share=data.Share(host, hosts),
                )
            ),
            num_examples=11,
            class_names=examples.class_names,
            strategy=strategy,
        )()
    images = np.concatenate(
        [
            x.numpy()
            for x, _, _ in batches_lib.for_evaluation(
                examples, recipe, batch_size=1
            )
        ]
    )
    return found, model(images).numpy()


def test_results_do_not_depend_on_batch_or_devices(results):
    first, *others = results[0].values()
    for other in others:
        np.testing.assert_array_equal(first.labels, other.labels)
        np.testing.assert_array_equal(first.predicted, other.predicted)
        # float32 convolutions in batches of another size.
        error = agreement.relative_error(other.losses, first.losses)
        assert error < agreement.ROUNDING
        assert other.summary()["examples"] == 11


def test_results_equal_numpy_on_the_logits(results):
    found, logits = results
    one = found["one_device", 4]
    labels = np.arange(11) % 3
    logits = logits.astype(np.float64)
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities = odds / odds.sum(axis=1, keepdims=True)
    np.testing.assert_array_equal(one.labels, labels)
    np.testing.assert_array_equal(one.predicted, logits.argmax(axis=1))
    for found, wanted in (
        (one.losses, -np.log(probabilities[range(11), labels])),
        (one.confidence, probabilities.max(axis=1)),
    ):
        assert agreement.relative_error(found, wanted) < agreement.ROUNDING
    error = agreement.relative_error(one.logits, logits)
    assert error < agreement.ROUNDING
    assert one.in_top_k.all()  # three classes are always among the first five


def test_a_lost_example_is_an_error():
    examples = make_examples(5, side=32)
    recipe = make_recipe(crop=32, resize=32)
    model = resnet_v2.build("R26x0.5", 3)
    evaluate = evaluation_lib.evaluator(
        predictions(model),
        batches=lambda host, hosts: batches_lib.for_evaluation(
            examples, recipe, batch_size=2
        ).take(2),
        num_examples=5,
        class_names=examples.class_names,
        strategy=tf.distribute.OneDeviceStrategy("CPU:0"),
    )
    with pytest.raises(RuntimeError, match="5 examples"):
        evaluate()


def test_an_evaluation_leaves_no_functions_behind():
    examples = make_examples(5, side=32)
    recipe = make_recipe(crop=32, resize=32)
    evaluate = evaluation_lib.evaluator(
        lambda images: tf.zeros((tf.shape(images)[0], 3)),
        batches=lambda host, hosts: batches_lib.for_evaluation(
            examples, recipe, batch_size=2
        ),
        num_examples=5,
        class_names=examples.class_names,
        strategy=distribution.build("one_device"),
    )

    def alive():
        # The functions by which images are read.
        return sum(type(o).__name__ == "FuncGraph" for o in gc.get_objects())

    # The network's own are made once.
    evaluate()
    gc.collect()
    # Python's own collector may not happen to come by.
    gc.disable()
    try:
        before = alive()
        for _ in range(3):
            evaluate()
        assert alive() <= before
    finally:
        gc.enable()


@pytest.mark.parametrize("device", ["one_device", "mirrored"])
def test_numbers_are_evaluated_in_their_own_unit(device):
    examples = dataclasses.replace(
        make_examples(7, side=32),
        labels=np.arange(7, dtype=np.float32),
        class_names=("age",),
    )
    found = evaluation_lib.evaluator(
        lambda images: tf.fill((tf.shape(images)[0], 1), 0.5),
        batches=lambda host, hosts: batches_lib.for_evaluation(
            examples,
            make_recipe(crop=32, resize=32),
            batch_size=4,
            share=data.Share(host, hosts),
        ),
        num_examples=7,
        class_names=examples.class_names,
        strategy=distribution.build(device),
        loss_name="squared",
        target_mean=2.0,
        target_scale=4.0,
    )()
    np.testing.assert_array_equal(found.labels, np.arange(7))
    np.testing.assert_array_equal(found.predicted, np.full(7, 4.0))


def test_too_many_logits_are_not_kept(monkeypatch):
    monkeypatch.setattr(evaluation_lib, "MAX_LOGITS", 14)
    for several, count in ((False, 5), (True, 5)):
        examples = make_examples(count, side=32)
        found = evaluation_lib.evaluator(
            lambda images: tf.tile(
                [[0.0, 1.0, -1.0]], (tf.shape(images)[0], 1)
            ),
            batches=lambda host, hosts, examples=examples: (
                batches_lib.for_evaluation(
                    examples, make_recipe(crop=32, resize=32), batch_size=2
                )
            ),
            num_examples=count,
            class_names=examples.class_names,
            strategy=tf.distribute.OneDeviceStrategy("CPU:0"),
            loss_name="sigmoid" if several else "softmax",
            several_labels=several,
        )()
        assert found.logits is None
        assert found.summary()["top1"] == 0.4
        assert found.details()["examples"] == count
