"""Every shipped flagfile resolves to a recipe that can run."""

import json
import os
import pathlib
import runpy
import subprocess
import sys

import pytest
from absl import flags

from bit_tf import architecture
from bit_tf import model_choice
from bit_tf import train
from bit_tf import zoo
from tests.conftest import ROOT
from tests.test_data import make_examples

FLAGFILES = sorted(
    path
    for path in (ROOT / "experiments").rglob("*.flags")
    # Of another program.
    if path.parent.name != "fewshot"
)


def test_the_tables_of_what_scaling_takes_are_computed():
    page = (ROOT / "experiments" / "upstream" / "SCALING.md").read_text()
    script = ROOT / "experiments" / "upstream" / "scaling.py"
    tables = subprocess.run(
        [sys.executable, script],
        check=True,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    ).stdout
    for table in tables.strip().split("\n\n"):
        assert table in page


@pytest.mark.parametrize(
    ("script", "results", "page"),
    [
        ("faults.py", "faults/campaign.jsonl", "docs/faults.md"),
        ("speed/memory.py", "speed/memory.jsonl", "docs/speed.md"),
        ("plots/norms.py", "grid.jsonl", "experiments/README.md"),
        ("plots/scales.py", "grid.jsonl", "experiments/README.md"),
    ],
)
def test_tables_are_those_of_the_rows(script, results, page, monkeypatch):
    experiments = ROOT / "experiments"
    lines = (experiments / "results" / results).read_text().splitlines()
    monkeypatch.syspath_prepend((experiments / script).parent)
    table = runpy.run_path(str(experiments / script))["table"]
    assert (
        table([json.loads(line) for line in lines]) in (ROOT / page).read_text()
    )


def test_the_tables_of_the_peers_are_those_of_the_rows():
    script = runpy.run_path(str(ROOT / "experiments" / "speed" / "table.py"))
    rows = script["read"](script["RESULTS"] / "peers.jsonl")
    page = (ROOT / "docs" / "speed.md").read_text()
    epyc, xeon = page.split("Intel Xeon with AVX-512, an earlier")
    assert script["table"](rows, "AMD EPYC") in epyc
    assert script["table"](rows, "Intel(R) Xeon(R) Processor") in xeon
    assert script["starts"](rows, "AMD EPYC") in page
    rows = script["read"](script["RESULTS"] / "input.jsonl")
    assert script["images"](rows, "AMD EPYC") in page


def test_the_table_of_the_curves_is_that_of_the_rows():
    experiments = ROOT / "experiments"
    script = runpy.run_path(str(experiments / "plots" / "fewshot.py"))
    page = (experiments / "README.md").read_text()
    paths = list(script["RESULTS"].glob("*.jsonl"))
    assert len(paths) == 3
    for path in paths:
        assert "\n".join(script["table_rows"](path)) in page


def test_there_are_flagfiles():
    assert ROOT / "experiments" / "quickstart.flags" in FLAGFILES


@pytest.mark.parametrize("path", FLAGFILES, ids=lambda path: path.stem)
def test_flagfiles_resolve(path):
    values = flags.FLAGS
    values.unparse_flags()
    values(["train", f"--flagfile={path}"])
    try:
        model_choice.check_name()
        name = values.model
        recipe = train._resolve(make_examples(100), name)
        if name not in zoo.ENTRIES:
            architecture.parse_name(name)
        assert recipe.warmup_steps < recipe.total_steps
        # What the file says is what counts.
        said = dict(
            line.removeprefix("--").split("=", 1)
            for line in path.read_text().splitlines()
            if line.startswith("--") and "=" in line
        )
        for field in (
            *("total_steps", "crop", "batch_size", "warmup_steps"),
            *("base_lr", "min_crop_area"),
        ):
            if field in said:
                assert float(getattr(recipe, field)) == float(said[field])
        assert recipe.name.startswith(said["recipe"])
    finally:
        values.unparse_flags()
        for name in ("train", "data", "recipe"):
            module = f"bit_tf.{name}_flags"
            for flag in values.get_flags_for_module(module):
                flag.unparse()


@pytest.mark.parametrize("path", FLAGFILES, ids=lambda path: path.stem)
def test_flagfiles_say_what_they_are(path):
    assert path.read_text().startswith("# ")
    assert "--flagfile" not in path.read_text()


def test_the_table_says_what_the_result_rows_say():
    text = (ROOT / "experiments" / "README.md").read_text()
    rows = [
        json.loads(line)
        for file in sorted((ROOT / "experiments" / "results").glob("*.jsonl"))
        for line in file.read_text().splitlines()
        if "top1" in json.loads(line)
    ]
    assert rows
    for row in rows:
        assert f"{100 * row['top1']:.1f} %" in text, row
        if "flagfile" in row:
            assert (ROOT / row["flagfile"]).is_file()
        if "top1_low" in row:
            low, high = 100 * row["top1_low"], 100 * row["top1_high"]
            assert f"({low:.1f} to {high:.1f})" in text


def test_no_path_of_somebody_s_machine():
    for file in pathlib.Path(ROOT / "experiments").rglob("*"):
        if file.suffix in (".flags", ".md", ".py", ".jsonl"):
            assert "/home/" not in file.read_text()


@pytest.mark.thorough
def test_plain_keras_layers_are_a_peer_with_the_same_logits():
    done = subprocess.run(
        [
            *(sys.executable, ROOT / "experiments" / "speed" / "compare.py"),
            *("--work=train:2:64", "--rounds=1"),
            "--contenders=bit_tf,keras_naive",
        ],
        check=True,
        capture_output=True,
        text=True,
    )
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["contender"] for row in rows] == ["bit_tf", "keras_naive"]
    for row in rows:
        # Without it the logits would not be alike.
        assert row["ratio"] > 0
        assert row["ms"] > 0 and row["peak_mb"] > 0
