"""What is put beside a run is a run that can be compared with it."""

import json

import pytest

from bit_tf import beside
from bit_tf import report
from bit_tf import workdir as workdir_lib
from tests.test_data import make_examples
from tests.test_report import final

SUMMARY = {"top1": 0.5, "top1_low": 0.4, "top1_high": 0.6, "examples": 12}
KEPT = {
    "model": "R26x0.5",
    "init_from": None,
    "total_steps": 300,
    "batch_size": 32,
    "data": {"eval_fingerprint": "same"},
}


def make_run(path, *, kept=None, summary=SUMMARY):
    workdir = workdir_lib.Workdir(path)
    path.mkdir()
    workdir.recipe.write_text(json.dumps(KEPT | (kept or {})))
    if summary:
        workdir.evaluation.write_text(json.dumps(summary))
    workdir.append_metrics(
        {"step": 100, "top1": 0.25}, {"step": 200, "train_loss": 1.0}
    )
    workdir.append_metrics({"step": 300, "top1": 0.5})
    return str(path)


def test_a_run_is_what_its_workdir_says(tmp_path):
    path = make_run(tmp_path / "a", kept={"init_from": "BiT-M-R50x1"})
    run = beside.read("mine", path, "same")
    assert run == beside.Run(
        name="mine",
        start="R26x0.5, BiT-M-R50x1",
        updates=300,
        batch_size=32,
        top1=0.5,
        low=0.4,
        high=0.6,
        curve=((100, 0.25), (300, 0.5)),
    )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"summary": None}, "no run that has ended"),
        ({"summary": {"mae": 1.0}}, "one class each"),
        ({"summary": {**SUMMARY, "map": 0.3}}, "one class each"),
        ({"kept": {"data": {"eval_fingerprint": "other"}}}, "other images"),
    ],
)
def test_what_cannot_be_compared_is_refused(tmp_path, change, said):
    path = make_run(tmp_path / "a", **change)
    with pytest.raises(ValueError, match=said):
        beside.read("mine", path, "same")


def test_a_directory_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no run that has ended"):
        beside.read("mine", str(tmp_path), "same")


def test_the_report_shows_all_of_them(tmp_path):
    runs = [
        beside.read(name, make_run(tmp_path / str(number)), "same")
        for number, name in enumerate(["this run", "<i>$5", "猫", "no curve"])
    ]
    assert len(runs) <= beside.MOST
    path = tmp_path / "report.html"
    report.write(
        path,
        model="R26x0.5",
        evaluation=make_examples(12),
        final=final(12),
        command="",
        runs=runs,
    )
    page = path.read_text()
    assert "Beside other runs" in page
    for name in ("this run", "&lt;i&gt;$5", "猫"):
        assert f"<td>{name}</td><td>R26x0.5, fresh weights</td>" in page
    assert "40.0\u202f%" in page or "40.0&nbsp;%" in page or "40.0\xa0%" in page
