"""The report says how good, how sure, and shows what went wrong."""

import base64
import dataclasses
import io

import numpy as np
import pytest
from PIL import Image

from bit_tf import outcomes
from bit_tf import pages
from bit_tf import plots
from bit_tf import report
from bit_tf import workdir as workdir_lib
from tests.test_data import make_examples
from tests.test_data import make_recipe

NO_BREAK = "\N{NO-BREAK SPACE}"


@pytest.mark.parametrize(
    ("low", "high", "baseline", "judged"),
    [
        (0.6, 0.8, 0.5, "better than"),
        (0.4, 0.8, 0.5, "not distinguishable from"),
        (0.1, 0.3, 0.5, "worse than"),
    ],
)
def test_the_verdict_compares_the_interval(low, high, baseline, judged):
    summary = {
        "top1": 0.7,
        "top1_low": low,
        "top1_high": high,
        "examples": 1234,
    }
    text = report.verdict(summary, baseline)
    assert f"{judged} always naming the largest class" in text
    assert f"70.0{NO_BREAK}% of 1,234 images right" in text


def test_the_baseline_is_training_s_largest_class():
    train = make_examples(4)  # labels 0 1 2 0
    evaluation = make_examples(5, classes=3).subset(np.array([0, 1, 1, 4]))
    assert report.majority_baseline(train, evaluation) == 0.25


def final(count, classes=3):
    rng = np.random.default_rng(0)
    labels = np.arange(count) % classes
    predicted = labels.copy()
    predicted[:4] = (labels[:4] + 1) % classes
    return outcomes.OneLabel(
        class_names=("<script>alert(1)</script>", "a&b", "$c$")[:classes],
        labels=labels,
        predicted=predicted,
        confidence=rng.uniform(size=count),
        label_probability=rng.uniform(size=count),
        in_top_k=np.ones(count, int),
        losses=rng.uniform(size=count),
    )


@pytest.fixture
def page(tmp_path):
    workdir = workdir_lib.Workdir(tmp_path)
    for step in (1, 2):
        workdir.append_metrics(
            {
                "step": step,
                "train_loss": 1.0 / step,
                "train_accuracy": 0.5,
                "lr": 0.1,
                "images_per_second": 9.0,
            }
        )
        workdir.append_metrics({"step": step, **final(12).summary()})
    report.write(
        workdir.report,
        rows=workdir_lib.read_metrics(workdir.path),
        recipe=make_recipe(),
        model="R26x0.5",
        train=make_examples(20),
        evaluation=make_examples(12),
        final=final(12),
        command="python -m bit_tf.train --dataset='a <b>'",
    )
    return workdir.report.read_text()


def test_foreign_text_is_escaped(page):
    assert "<script>" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert "a&amp;b" in page
    assert "a &lt;b&gt;" in page


def test_the_page_needs_no_network(page):
    assert 'src="http' not in page and "href=" not in page


def test_the_worst_come_first(page):
    evaluation = final(12)
    wrong = np.flatnonzero(~evaluation.correct)
    worst = wrong[np.argmin(evaluation.label_probability[wrong])]
    section = page.split("Most wrong")[1].split("Some at random")[0]
    assert section.count("<figure>") == 4
    assert section.index(f">{worst}</span>") == min(
        section.index(f">{i}</span>") for i in wrong
    )


def test_every_class_and_number_is_there(page):
    table = page.split("Class by class")[1].split("The recipe")[0]
    assert table.count("<tr>") == 4
    assert f"66.7{NO_BREAK}% of 12 images right" in page


def test_of_very_many_classes_the_worst_are_shown(page, monkeypatch):
    rows = [
        {"name": str(i), "f1": f1}
        for i, f1 in enumerate((0.9, None, 0.1, 0.5, 0.0))
    ]
    assert report._worst(rows) == rows
    monkeypatch.setattr(report, "TABLE_CLASSES", 3)
    assert [row["name"] for row in report._worst(rows)] == ["2", "3", "4"]
    assert "<summary>3 classes</summary>" in page


def test_the_baseline_where_labels_were_not_counted():
    class Uncounted:
        def class_counts(self):
            return None

    evaluation = make_examples(5, classes=3).subset(np.array([0, 1, 1, 4]))
    assert report.majority_baseline(Uncounted(), evaluation) == 0.75


def test_very_long_pictures_have_thumbnails(tmp_path):
    for size in ((600, 1), (1, 600)):
        Image.new("RGB", size).save(tmp_path / "long.png")
        assert pages.thumbnail(str(tmp_path / "long.png"))


def test_names_in_letters_the_font_lacks_become_others():
    assert plots._plottable("chat", "") == "chat"
    assert plots._plottable("\N{CJK UNIFIED IDEOGRAPH-732B}", "x") == "x"
    assert plots._plottable("$5", "") == r"\$5"


def test_a_run_without_mistakes_has_a_page_too(tmp_path):
    count = 6
    labels = np.arange(count) % 3
    perfect = outcomes.OneLabel(
        class_names=("a", "b", "c"),
        labels=labels,
        predicted=labels,
        confidence=np.ones(count),
        label_probability=np.ones(count),
        in_top_k=np.ones(count, int),
        losses=np.zeros(count),
    )
    workdir = workdir_lib.Workdir(tmp_path)
    report.write(
        workdir.report,
        rows=workdir_lib.read_metrics(workdir.path),
        recipe=make_recipe(),
        model="R26x0.5",
        train=make_examples(9),
        evaluation=make_examples(count),
        final=perfect,
        command="",
    )
    assert "every image was right" in workdir.report.read_text()


def write_page(tmp_path, final, **kwargs):
    path = tmp_path / "report.html"
    report.write(
        path,
        model="R26x0.5",
        final=final,
        command="python -m bit_tf.evaluate",
        **kwargs,
    )
    return path.read_text()


def test_an_evaluation_alone_has_a_page(tmp_path):
    page = write_page(tmp_path, final(12), evaluation=make_examples(12))
    assert "How it learned" not in page and "The recipe" not in page
    assert "What it confuses" in page and "How far to trust" in page


def test_several_labels_have_a_page(tmp_path):
    rng = np.random.default_rng(0)
    targets = rng.uniform(size=(12, 3)) < 0.5
    found = outcomes.SeveralLabels(
        class_names=("a", "b", "never"),
        hits=np.ones(12, int),
        losses=rng.uniform(size=12),
        targets=(targets & [True, True, False]).astype(np.uint8),
        logits=rng.normal(size=(12, 3)),
    )
    page = write_page(tmp_path, found, evaluation=make_examples(12))
    assert "Mean average precision" in page.split("</h1>")[0]
    assert "over 2 classes and 12 images" in page
    assert "Average precision</th>" in page
    assert "What it confuses" not in page
    bare = dataclasses.replace(found, targets=None, logits=None)
    page = write_page(tmp_path, bare, evaluation=make_examples(12))
    assert "likeliest class is a right one for 100.0" in page


def test_numbers_have_a_page(tmp_path):
    found = outcomes.Numbers(
        class_names=("age",),
        labels=np.arange(12.0),
        predicted=np.arange(12.0) + 1,
    )
    page = write_page(tmp_path, found, evaluation=make_examples(12))
    assert "Off by 1 on average over 12 images" in page
    assert "saying the mean, 5.5, is off by 3." in page
    assert "Predicted against true" in page and "is 3" in page


def test_images_that_were_left_out_are_listed(tmp_path):
    evaluation = dataclasses.replace(
        make_examples(12), left_out=(("a/<b>.png", "empty file"),)
    )
    page = write_page(tmp_path, final(12), evaluation=evaluation)
    section = page.split("Images that were left out")[1]
    assert "a/&lt;b&gt;.png" in section and "empty file" in section


def test_thumbnails_are_turned_as_cameras_noted(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "turned.jpg"
    Image.new("RGB", (200, 100)).save(path, exif=exif)
    content = base64.b64decode(pages.thumbnail(str(path)))
    with Image.open(io.BytesIO(content)) as image:
        assert image.size == (56, 112)
