"""Probes against scikit-learn; the program's rows, table and figure."""

import json

import numpy as np
import pytest
from PIL import Image
from sklearn import linear_model
from sklearn import neighbors

from bit_tf import curves
from bit_tf import ledger
from bit_tf import probes
from tests import programs


def clusters(seed, count, features=12, classes=4):
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(0).normal(size=(classes, features))
    labels = rng.integers(0, classes, count)
    values = centres[labels] + rng.normal(size=(count, features))
    return values.astype(np.float32), labels


@pytest.mark.parametrize("count", [9, 300])
def test_the_linear_probe_is_a_ridge_regression(count):
    features, labels = clusters(1, count)
    queries, _ = clusters(2, 50)
    found = probes.linear(features, labels, queries, num_classes=5, ridge=7.0)
    mean, scale = features.mean(0), features.std(0) + 1e-6

    def rows(values):
        values = (values - mean) / scale
        return np.hstack([values, np.full((len(values), 1), 100.0)])

    wanted = (
        linear_model.Ridge(alpha=7.0, fit_intercept=False, solver="cholesky")
        .fit(rows(features), 2.0 * np.eye(5)[labels] - 1)
        .predict(rows(queries))
    )
    np.testing.assert_allclose(found, wanted, atol=1e-4)


def test_neighbours_vote_as_scikit_learn_s():
    features, labels = clusters(1, 200)
    queries, truth = clusters(2, 100)
    found = probes.neighbours(features, labels, queries, num_classes=4, count=7)
    mean = features.mean(0)
    model = neighbors.KNeighborsClassifier(7, metric="cosine")
    model.fit(features - mean, labels)
    votes = np.rint(model.predict_proba(queries - mean) * 7)
    # The sum of cosines only decides between equal votes.
    assert np.abs(found - votes).max() < 0.5
    np.testing.assert_array_equal(np.rint(found).sum(1) >= 4, True)
    assert (found.argmax(1) == truth).mean() > 0.7


def test_of_equal_votes_the_nearer_wins():
    features = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, -1.0]])
    found = probes.neighbours(
        features,
        np.array([0, 1, 2]),
        np.array([[0.1, 0.9]]),
        num_classes=3,
        count=2,
    )
    assert found.argmax() == 1
    # More neighbours than there are examples are as many as there are.
    probes.neighbours(
        features, np.array([0, 1, 2]), features, num_classes=3, count=99
    )


def test_groups_and_their_table():
    rows = [
        {"model": m, "shots": s, "top1": t}
        for m, s, t in (
            ("b", 1, 0.5),
            ("b", 1, 0.1),
            ("b", 1, 0.2),
            ("a", 5, 1),
        )
    ]
    first, second = curves.summarize(rows, ("model", "shots"))
    assert first == {
        "model": "b",
        "shots": 1,
        "min": 0.1,
        "median": 0.2,
        "max": 0.5,
        "runs": 3,
    }
    assert second["runs"] == 1
    lines = curves.table([first, second], ("model", "shots")).splitlines()
    assert lines[0].split()[2:] == ["min", "median", "max", "runs"]
    assert lines[1].split() == ["b", "1", "10.0", "20.0", "50.0", "3"]


def test_a_ledger_knows_what_is_there(tmp_path):
    path = tmp_path / "new" / "results.jsonl"
    kept = ledger.Ledger(path, about={"x": 1}, keys=("model", "seed"))
    kept.add({"model": "a", "seed": 0, "top1": 0.5})
    kept.add({"model": "a", "seed": 1, "top1": 0.6})
    # Cut off in the middle of a row, as by a full disk.
    path.write_text(path.read_text()[:-9])
    again = ledger.Ledger(path, about={"x": 1}, keys=("model", "seed"))
    assert again.find(model="a", seed=0)["top1"] == 0.5
    assert again.find(model="a", seed=1) is None
    again.add({"model": "a", "seed": 1, "top1": 0.7})
    lines = path.read_text().splitlines()
    assert json.loads(lines[-1])["top1"] == 0.7 and len(lines) == 3
    with pytest.raises(ValueError, match="x was 1, now 2"):
        ledger.Ledger(path, about={"x": 2}, keys=("model", "seed"))
    path.write_text("something else\n")
    with pytest.raises(ValueError, match="other settings"):
        ledger.Ledger(path, about={"x": 2}, keys=("model", "seed"))


def fewshot(*flags, dataset="builtin:patches"):
    return programs.run(
        "fewshot",
        f"--dataset={dataset}",
        *("--models=small=R26x0.5", "--crop=32", "--batch_size=4"),
        *("--total_steps=2", "--methods=finetune,linear,knn"),
        *flags,
    )


def test_results_are_kept_and_not_computed_again(tmp_path):
    done = fewshot(*("--shots=2,1", "--seeds=1", f"--output={tmp_path}"))
    assert done.returncode == 0, done.stderr
    first = (tmp_path / "results.jsonl").read_text()
    rows = [json.loads(line) for line in first.splitlines()[1:]]
    assert {(r["method"], r["shots"]) for r in rows} == {
        (method, shots)
        for method in ("finetune", "linear", "knn")
        for shots in (1, 2)
    }
    for row in rows:
        assert row["examples"] == 320
        assert row["train_examples"] == 10 * row["shots"]
        assert row["top1_low"] <= row["top1"] <= row["top1_high"]
    table = done.stdout.split("model  ")[1]
    assert "small" in table and table.count("\n") >= 8
    with Image.open(tmp_path / "fewshot.png") as image:
        assert image.width > 500
    done = fewshot(
        *("--shots=all,1", "--seeds=2", f"--output={tmp_path}"),
        "--methods=knn",
    )
    second = (tmp_path / "results.jsonl").read_text()
    assert second.startswith(first) and second.count("\n") == 10
    assert done.stdout.count("seed ") == 3
    last = json.loads(second.splitlines()[-1])
    assert last["shots"] == "all" and last["train_examples"] == 480
    # The table is of what was asked for.
    assert "linear" not in done.stdout


@pytest.mark.slow
def test_a_class_with_fewer_may_give_what_it_has(tmp_path):
    done = fewshot(
        *("--shots=1000", "--seeds=1", f"--output={tmp_path}"),
        *("--methods=knn", "--fewshot_allow_missing"),
    )
    assert done.returncode == 0, done.stderr
    row = json.loads((tmp_path / "results.jsonl").read_text().splitlines()[-1])
    assert row["train_examples"] == 480
    assert "allow_missing" in (tmp_path / "results.jsonl").read_text()


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--shots=0,5",), "whole numbers from 1"),
        (("--shots=many",), "whole numbers from 1"),
        (("--methods=magic",), "'magic' is none of finetune"),
        (("--shots=1000",), "fewer than"),
        (("--models=R7x1",), "R7x1"),
        (("--models=BiT-X-R50x1",), "BiT-X-R50x1"),
    ],
)
def test_what_cannot_be_is_one_line(flags, said, tmp_path):
    done = fewshot(f"--output={tmp_path}", *flags)
    assert done.returncode == 1
    assert said in done.stderr and done.stderr.count("\n") == 1
