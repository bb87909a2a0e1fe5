"""Metrics against scikit-learn, and against values worked out by hand."""

import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from bit_tf import metrics
from bit_tf import outcomes


# Published examples: Newcombe 1998, Stat. Med. 17, table I, method 3.
@pytest.mark.parametrize(
    ("correct", "total", "low", "high"),
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_interval_equals_published_values(correct, total, low, high):
    found = metrics.wilson_interval(correct, total)
    assert found == pytest.approx((low, high), abs=6e-5)


def test_wilson_interval_reaches_one():
    low, high = metrics.wilson_interval(20, 20)
    assert high == 1.0
    assert low == pytest.approx(1 - 0.1611, abs=6e-5)


@pytest.mark.parametrize("seed", range(8))
def test_average_precision_with_ties_and_absent_classes(seed):
    rng = np.random.default_rng(seed)
    targets = rng.uniform(size=(57, 6)) < 0.3
    targets[:, 4] = False
    targets[:, 5] = True
    # One decimal: many ties.
    scores = np.round(rng.normal(size=(57, 6)), 1 if seed % 2 else 6)
    found = metrics.average_precision(targets, scores)
    assert np.isnan(found[4])
    for label in (0, 1, 2, 3, 5):
        wanted = sklearn_metrics.average_precision_score(
            targets[:, label], scores[:, label]
        )
        assert found[label] == pytest.approx(wanted, abs=1e-12)


def test_average_precision_by_hand():
    targets = np.array([[1], [0], [1], [0]], bool)
    scores = np.array([[4.0], [3.0], [2.0], [1.0]])
    # Found first at precision 1, then at 2/3.
    assert metrics.average_precision(targets, scores) == pytest.approx(5 / 6)


def random_outcome(seed, classes=7, count=200, absent=6):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(count, classes)).astype(np.float32) * 2
    labels = rng.integers(0, absent, count)
    logits[np.arange(count), labels] += 1.5
    logits = np.round(logits, 1)
    probabilities = metrics.softmax(logits)
    predicted = logits.argmax(1)
    rows = np.arange(count)
    return outcomes.OneLabel(
        class_names=[f"c{i}" for i in range(classes)],
        labels=labels,
        predicted=predicted,
        confidence=probabilities[rows, predicted],
        label_probability=probabilities[rows, labels],
        in_top_k=np.ones(count, int),
        losses=-np.log(probabilities[rows, labels]),
        logits=logits,
    )


@pytest.mark.parametrize("seed", range(4))
def test_classes_against_scikit_learn(seed):
    outcome = random_outcome(seed)
    details = outcome.details()
    classes = range(7)
    precision, recall, f1, support = (
        sklearn_metrics.precision_recall_fscore_support(
            outcome.labels,
            outcome.predicted,
            labels=classes,
            zero_division=np.nan,
        )
    )
    for row, p, r, f, n in zip(
        details["per_class"], precision, recall, f1, support, strict=True
    ):
        assert row["examples"] == n
        for mine, theirs in ((row["precision"], p), (row["recall"], r)):
            assert mine == pytest.approx(theirs) or (
                mine is None and np.isnan(theirs)
            )
        assert row["f1"] == pytest.approx(np.nan_to_num(f)) or row["f1"] is None
    np.testing.assert_array_equal(
        outcome.confusion(),
        sklearn_metrics.confusion_matrix(
            outcome.labels, outcome.predicted, labels=classes
        ),
    )
    assert details["top1"] == sklearn_metrics.accuracy_score(
        outcome.labels, outcome.predicted
    )
    assert metrics.cross_entropy(
        outcome.logits, outcome.labels
    ) == pytest.approx(
        sklearn_metrics.log_loss(
            outcome.labels, metrics.softmax(outcome.logits), labels=classes
        )
    )


def test_calibration_by_hand():
    confidence = np.array([0.05, 0.55, 0.6, 0.95, 1.0])
    correct = np.array([False, True, False, True, True])
    error, rows = metrics.calibration(confidence, correct, bins=10)
    # Bins (0, .1], (.5, .6], (.9, 1]: 1/5 * .05 + 2/5 * .075 + 2/5 * .025.
    assert error == pytest.approx(0.05)
    assert [row["examples"] for row in rows] == [1, 2, 2]
    assert rows[1]["accuracy"] == 0.5
    assert rows[1]["confidence"] == pytest.approx(0.575)
    assert metrics.calibration(np.zeros(2), np.zeros(2, bool))[0] == 0


@pytest.mark.parametrize("temperature", [0.3, 1.0, 4.0])
def test_the_temperature_that_was_applied_is_found(temperature):
    rng = np.random.default_rng(0)
    honest = rng.normal(size=(20_000, 5)) * 2
    probabilities = metrics.softmax(honest)
    labels = (probabilities.cumsum(1) > rng.uniform(size=(20_000, 1))).argmax(1)
    found = metrics.fit_temperature(honest * temperature, labels)
    assert found == pytest.approx(temperature, rel=0.03)

    # It is the best of its neighbours.
    def loss(t):
        return metrics.cross_entropy(honest * temperature / t, labels)

    assert loss(found) <= min(loss(found * 1.01), loss(found / 1.01))


def test_there_is_no_temperature_when_all_are_right():
    logits = np.eye(3)[[0, 1, 2, 0]] * 4
    assert metrics.fit_temperature(logits, np.array([0, 1, 2, 0])) is None


def test_the_temperature_lowers_the_loss_and_is_told():
    outcome = random_outcome(3)
    told = outcome.calibration()
    assert told["loss_at_temperature"] <= metrics.cross_entropy(
        outcome.logits, outcome.labels
    )
    assert told["temperature"] > 0 and 0 <= told["ece_at_temperature"] <= 1


@pytest.mark.parametrize("seed", range(3))
def test_several_labels_against_scikit_learn(seed):
    rng = np.random.default_rng(seed)
    targets = rng.uniform(size=(80, 5)) < 0.3
    targets[:, 4] = False
    logits = np.round(rng.normal(size=(80, 5)) + 2 * targets, 1)
    outcome = outcomes.SeveralLabels(
        class_names=list("abcde"),
        hits=targets[np.arange(80), logits.argmax(1)].astype(int),
        losses=np.ones(80),
        targets=targets.astype(np.uint8),
        logits=logits,
    )
    summary = outcome.summary()
    present = targets.any(axis=0)
    assert summary["map"] == pytest.approx(
        sklearn_metrics.average_precision_score(
            targets[:, present], logits[:, present], average="macro"
        )
    )
    assert summary["f1"] == pytest.approx(
        sklearn_metrics.f1_score(targets, logits > 0, average="micro")
    )
    assert outcome.per_class()[4]["average_precision"] is None
    wrong = set(outcome.worst_first())
    assert wrong == set(np.flatnonzero(((logits > 0) != targets).any(axis=1)))


def test_numbers_against_scikit_learn():
    rng = np.random.default_rng(0)
    labels = rng.normal(size=50) * 9
    predicted = labels + rng.normal(size=50)
    summary = outcomes.Numbers(
        class_names=("age",), labels=labels, predicted=predicted
    ).summary()
    assert summary["mae"] == pytest.approx(
        sklearn_metrics.mean_absolute_error(labels, predicted)
    )
    assert summary["rmse"] == pytest.approx(
        sklearn_metrics.root_mean_squared_error(labels, predicted)
    )
    assert summary["r2"] == pytest.approx(
        sklearn_metrics.r2_score(labels, predicted)
    )
    same = outcomes.Numbers(
        class_names=("age",), labels=np.ones(3), predicted=np.zeros(3)
    )
    assert same.summary()["r2"] is None
