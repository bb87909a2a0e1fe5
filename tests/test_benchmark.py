"""What is measured is told, once by each process, and can be read."""

import json

import pytest

from bit_tf import architecture
from tests import programs

FLAGS = ("--model=R26x0.5", "--crop=32", "--batch_size=2", "--calls=2")


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_training_is_measured(tmp_path):
    file = tmp_path / "rows.jsonl"
    done = programs.run("benchmark", *FLAGS, "--work=train", f"--json={file}")
    assert done.returncode == 0, done.stderr
    assert "images/s" in done.stdout and "GFLOP/s" in done.stdout
    (row,) = rows(file)
    assert row["work"] == "train" and row["images"] == "noise"
    assert row["ms_min"] <= row["ms"] <= row["ms_max"]
    assert row["images_per_second"] == pytest.approx(2e3 / row["ms"])
    # TensorFlow alone is more than this, and takes longer to import.
    assert row["peak_memory_mb"] > 200 and row["startup_seconds"] > 1
    assert row["startup_seconds"] > row["first_call_seconds"]
    # Three passes, two operations for each multiply-add.
    each = 2 * 3 * architecture.multiplications("R26x0.5", 32)
    flops = row["images_per_second"] * each
    share = flops / row["gemm_gflops"] / 1e9
    assert row["gemm_share"] == pytest.approx(share, rel=1e-3)


@pytest.mark.thorough
def test_all_is_measured_on_real_images(tmp_path):
    file = tmp_path / "rows.jsonl"
    done = programs.run(
        "benchmark", *FLAGS, f"--json={file}", "--dataset=builtin:patches"
    )
    assert done.returncode == 0, done.stderr
    found = rows(file)
    assert [row["work"] for row in found] == [
        "train",
        "inference",
        "export",
        "input",
    ]
    assert [row["images"] for row in found] == [
        "builtin:patches",
        "noise",
        "noise",
        "builtin:patches",
    ]
    assert "gemm_share" not in found[-1]


@pytest.mark.parametrize(
    ("flag", "work", "wanted"),
    [
        ("--remat", "input", "--work=train."),
        ("--precision=mixed_float16", "export", "--work=inference and"),
        ("--dataset=folder:x", "inference", "--work=input and --work=train."),
    ],
)
def test_what_would_change_nothing_is_refused(flag, work, wanted):
    done = programs.run("benchmark", flag, f"--work={work}")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert f"{flag} changes nothing" in done.stderr and wanted in done.stderr


def test_what_cannot_be_measured_is_refused():
    done = programs.run("benchmark", "--model=R27")
    assert done.returncode == 1
    assert done.stderr.startswith("bit_tf.benchmark: unknown model 'R27'")
