"""The program from outside: what a user types and what they get."""

import json
import pathlib
import resource
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from tests import programs
from tests.conftest import ROOT
from tests.conftest import save_image

DATASET = "--dataset=builtin:patches"
TINY = (
    "--model=R26x0.5",
    "--crop=32",
    "--batch_size=4",
    "--total_steps=6",
    "--base_lr=0.02",
)


def run(*flags, module="train", **kwargs):
    return programs.run(module, *flags, **kwargs)


def weights(workdir):
    with np.load(pathlib.Path(workdir) / "weights.npz") as stored:
        return {key: stored[key] for key in stored.files}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run on a folder of two classes, and what it printed."""
    root = tmp_path_factory.mktemp("finished")
    for split, count in (("train", 6), ("test", 5)):
        for name, value in (("dark <b>", 60), ("light", 190)):
            for number in range(count):
                save_image(
                    root / "images" / split / name / f"{number}.png",
                    value=value,
                )
    flags = (
        f"--dataset=folder:{root / 'images'}",
        f"--workdir={root / 'run'}",
        "--eval_every=3",
        *TINY,
    )
    return root / "run", run(*flags), flags


def test_everything_is_left_in_the_workdir(finished):
    workdir, done, _ = finished
    assert done.returncode == 0, done.stderr
    assert {entry.name for entry in workdir.iterdir()} == {
        ".lock",
        "run.flags",
        "recipe.json",
        "metrics.jsonl",
        "tensorboard",
        "checkpoints",
        "weights.npz",
        "evaluation.json",
        "saved_model",
        "report.html",
    }
    assert (workdir / "checkpoints" / "step-00000006").is_dir()


def test_the_terminal_shows_recipe_result_and_places(finished):
    workdir, done, _ = finished
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert "12 images to train on, 10 to evaluate on, 2 classes" in lines[0]
    assert "  batch_size    4" in done.stdout
    assert "--batch_size\n" in done.stdout
    assert "small task, 12 is fewer" not in done.stdout  # the flag decided
    assert f"report        {workdir}/report.html" in lines
    assert lines[-1].startswith("own images    ")
    assert lines[-1].endswith(
        " -m bit_tf.train --dataset=folder:PATH --workdir=DIR"
    )
    # Before step 1 the recipe, then the steps.
    assert done.stdout.index("recipe hyperrule/paper") < done.stdout.index(
        "step 3: top-1"
    )


def test_recipe_and_rows_are_what_scripts_rely_on(finished):
    workdir, _, _ = finished
    recipe = json.loads((workdir / "recipe.json").read_text())
    assert recipe["total_steps"] == 6
    assert recipe["batch_size"] == 4
    assert recipe["model"] == "R26x0.5"
    assert recipe["class_names"] == ["dark <b>", "light"]
    assert recipe["sources"]["momentum"].startswith("BiT paper")
    rows = [
        json.loads(line)
        for line in (workdir / "metrics.jsonl").read_text().splitlines()
    ]
    evaluated = [row for row in rows if "top1" in row]
    assert [row["step"] for row in evaluated] == [3, 6]
    assert all(0 <= row["top1"] <= 1 for row in evaluated)
    assert all(row["examples"] == 10 for row in evaluated)
    final = json.loads((workdir / "evaluation.json").read_text())
    assert final["top1"] == evaluated[-1]["top1"]
    assert len(final["per_class"]) == 2


def test_weights_are_in_the_published_layout(finished):
    stored = weights(finished[0])
    assert stored["resnet/head/conv2d/kernel"].shape == (1, 1, 1024, 2)
    assert stored["resnet/root_block/standardized_conv2d/kernel"].shape == (
        7,
        7,
        3,
        32,
    )


def test_the_report_is_one_page_that_escapes_names(finished):
    page = (finished[0] / "report.html").read_text()
    assert "dark &lt;b&gt;" in page
    assert "dark <b>" not in page
    assert "of 10 images right" in page
    assert "http://" not in page and "https://" not in page
    assert page.count("data:image/jpeg;base64,") >= 10


@pytest.mark.slow
def test_the_flags_left_behind_repeat_the_run(finished, tmp_path):
    workdir, _, _ = finished
    again = run(
        f"--flagfile={workdir / 'run.flags'}",
        f"--workdir={tmp_path / 'again'}",
        "--noexport",
    )
    assert again.returncode == 0, again.stderr
    first, second = weights(workdir), weights(tmp_path / "again")
    for key, value in first.items():
        np.testing.assert_array_equal(value, second[key])
    assert not (tmp_path / "again" / "saved_model").exists()
    # What was left out can be had later.
    exported = run(
        f"--workdir={tmp_path / 'again'}",
        f"--output={tmp_path / 'exported'}",
        module="export",
    )
    assert exported.returncode == 0, exported.stderr
    assert (tmp_path / "exported" / "saved_model.pb").exists()


def test_an_ended_run_can_be_given_again(finished):
    workdir, _, flags = finished
    before = weights(workdir)
    rows = (workdir / "metrics.jsonl").read_text()
    done = run(*flags, f"--beside=before={workdir}")
    assert done.returncode == 0, done.stderr
    assert "continuing at step 6 of 6" in done.stdout
    assert "beside it, before: " in done.stdout
    assert "Beside other runs" in (workdir / "report.html").read_text()
    assert (workdir / "metrics.jsonl").read_text() == rows
    for key, value in weights(workdir).items():
        np.testing.assert_array_equal(value, before[key])


def test_weights_of_a_run_start_another(finished, tmp_path):
    workdir, _, _ = finished
    done = run(
        "--dataset=builtin:patches",
        "--examples_per_class=1",
        f"--init_from={workdir / 'weights.npz'}",
        f"--workdir={tmp_path / 'next'}",
        "--noexport",
        *TINY,
        "--total_steps=2",
    )
    assert done.returncode == 0, done.stderr
    assert "2 classes; the new head for 10 starts at zero" in done.stdout
    assert "10 images to train on, 320 to evaluate on" in done.stdout


@pytest.mark.slow
def test_the_upstream_recipe_trains(tmp_path):
    done = run(
        DATASET,
        "--recipe=upstream",
        "--examples_per_class=2",
        "--batch_size=4",
        "--crop=32",
        "--total_steps=3",
        "--eval_every=3",
        "--noexport",
        f"--workdir={tmp_path / 'run'}",
    )
    assert done.returncode == 0, done.stderr
    assert "recipe upstream/BiT-S" in done.stdout
    recipe = json.loads((tmp_path / "run" / "recipe.json").read_text())
    assert recipe["weight_decay"] == 1e-4
    assert "inception_crop(32,5)" in recipe["train_preprocessing"]


def refused(*flags, **kwargs):
    """Returns the one line of a run that must be refused."""
    done = run(*flags, **kwargs)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("bit_tf.")
    return lines[0]


@pytest.mark.parametrize(
    ("flags", "names"),
    [
        ([DATASET, "--model=R50"], ["R50", "R26x0.5"]),
        (
            [DATASET, "--model=BiT-M-R50x1"],
            ["127.0.0.1:9/BiT-M-R50x1.npz", "put it at", "--mirror"],
        ),
        ([DATASET, "--model=BiT-L-R50x1"], ["never published"]),
        ([DATASET, "--model=BiT-M-R26x1"], ["BiT-M-R50x1-ILSVRC2012"]),
        ([DATASET, "--batch_size=0"], ["batch_size", "0"]),
        ([DATASET, "--batch_size=many"], ["batch_size", "many"]),
        ([DATASET, "--total_steps=-5"], ["total_steps", "-5"]),
        ([DATASET, "--base_lr=nan"], ["base_lr", "nan"]),
        ([DATASET, f"--seed={10**20}"], ["seed"]),
        ([DATASET, f"--total_steps={10**17}"], ["total_steps"]),
        ([DATASET, "--model=R152x999"], ["R152x999", "16"]),
        ([DATASET, "--workdir="], ["--workdir"]),
        ([DATASET, "--base_lr=-1"], ["base_lr", "-1"]),
        ([DATASET, "--mixup_alpha=-1"], ["mixup_alpha"]),
        ([DATASET, "--crop=200", "--resize=100"], ["resize"]),
        ([DATASET, "--recipe=magic"], ["recipe", "hyperrule"]),
        ([DATASET, "--strategy=pods"], ["strategy", "mirrored"]),
        ([DATASET, "--scale_with_batch"], ["--batch_size"]),
        ([DATASET, "--batchsize=3"], ["batchsize"]),
        ([DATASET, "--weight_decay_to=start"], ["--weight_decay"]),
        ([DATASET, "--fewshot_seed=1"], ["--examples_per_class"]),
        ([DATASET, "--train_split=train"], ["fixed splits"]),
        ([DATASET, "--examples_per_class=49"], ["(48)", "allow_missing"]),
        ([DATASET, "--init_from=none.npz"], ["none.npz", "do not exist"]),
        ([DATASET, "stray"], ["stray"]),
        (["--dataset=builtin:cats"], ["builtin:patches"]),
        (["--dataset=folder:nowhere"], ["nowhere", "does not exist"]),
        (["--dataset=???"], ["???", "folder:PATH"]),
        ([], ["dataset"]),
        (["--flagfile=none.flags"], ["none.flags"]),
    ],
    ids=lambda value: "_".join(value)[:40],
)
def test_wrong_flags_are_one_line(flags, names, tmp_path):
    line = refused(f"--workdir={tmp_path / 'run'}", *flags)
    for name in names:
        assert name in line


def test_an_unknown_tfds_name_is_one_line(tmp_path):
    line = refused("--dataset=no_such_set", f"--workdir={tmp_path / 'run'}")
    assert "no_such_set" in line


def test_another_keras_backend_is_one_line(monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    assert "KERAS_BACKEND=jax" in refused(DATASET, "--workdir=unused")


def test_a_missing_workdir_is_one_line():
    assert "workdir" in refused(DATASET)


def test_a_folder_with_a_broken_image_is_one_line(image_folder, tmp_path):
    (image_folder / "train" / "dark" / "bad.jpg").write_text("no image")
    line = refused(
        f"--dataset=folder:{image_folder}", f"--workdir={tmp_path / 'run'}"
    )
    assert "train/dark/bad.jpg (not an image" in line
    assert not (tmp_path / "run").exists()


def test_the_workdir_of_another_run_is_kept(finished):
    workdir, _, flags = finished
    before = {p: p.read_bytes() for p in workdir.rglob("*") if p.is_file()}
    line = refused(*flags, "--total_steps=7")
    assert "total_steps was 6, now 7" in line
    after = {p: p.read_bytes() for p in workdir.rglob("*") if p.is_file()}
    assert after == before


def test_a_workdir_that_is_a_file_is_one_line(tmp_path):
    (tmp_path / "file").write_text("x")
    assert "is a file" in refused(DATASET, f"--workdir={tmp_path / 'file'}")


@pytest.mark.slow
def test_a_full_disk_is_one_line_and_loses_nothing(tmp_path):
    """A limit on file sizes stands in for a full disk: weights do not fit."""
    flags = (
        DATASET,
        "--examples_per_class=2",
        "--noexport",
        f"--workdir={tmp_path / 'run'}",
        "--checkpoint_every=2",
        *TINY,
    )

    def limit():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (8 << 20, 8 << 20))

    line = refused(*flags, preexec_fn=limit)
    assert "Make room" in line
    assert not list((tmp_path / "run" / "checkpoints").glob("*"))
    done = run(*flags)
    assert done.returncode == 0, done.stderr


def test_asked_to_end_it_saves_and_says_so(tmp_path):
    flags = (DATASET, *TINY, "--total_steps=3000", "--noexport")
    process = programs.start(
        "train",
        *flags,
        f"--workdir={tmp_path / 'run'}",
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        deadline = time.monotonic() + 120
        while not (tmp_path / "run" / "metrics.jsonl").exists():
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.05)
        time.sleep(3)
        process.terminate()
        _, said = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 143
    last = said.splitlines()[-1]
    assert last.endswith("which is saved; the same command continues")
    step = int(last.split("step ")[1].split(",")[0])
    (saved,) = (tmp_path / "run" / "checkpoints").iterdir()
    assert saved.name == f"step-{step:08d}"


def test_a_loss_that_is_not_finite_has_an_exit_code_of_its_own(tmp_path):
    done = run(
        DATASET,
        *TINY,
        "--base_lr=1e30",
        "--warmup_steps=0",
        f"--workdir={tmp_path / 'run'}",
    )
    assert done.returncode == 3
    assert len(done.stderr.splitlines()) == 1
    assert "not finite" in done.stderr


@pytest.mark.slow
def test_all_switches_at_once(tmp_path):
    done = run(
        DATASET,
        *TINY,
        "--examples_per_class=2",
        "--noexport",
        f"--workdir={tmp_path / 'run'}",
        "--precision=mixed_bfloat16",
        "--accumulate_steps=2",
        "--remat",
        "--jit_compile",
        "--steps_per_call=2",
        "--cache_mb=10",
        "--clip_norm=1",
        "--ema_decay=0.9",
        "--weight_decay=1e-4",
        "--nan_policy=rollback",
        "--keep_checkpoints=1",
        "--keep_checkpoint_every=4",
    )
    assert done.returncode == 0, done.stderr
    assert "ema_decay" in done.stdout and "weight_decay" in done.stdout
    assert "computed 2 at a time" in done.stdout
    assert "images are" in done.stdout and "in memory" in done.stdout
    kept = sorted(p.name for p in (tmp_path / "run" / "checkpoints").iterdir())
    assert kept == ["step-00000004", "step-00000006"]
    assert np.isfinite(
        [np.isfinite(v).all() for v in weights(tmp_path / "run").values()]
    ).all()
    # What is saved for others is the average, not the last weights.
    with np.load(
        tmp_path / "run" / "checkpoints" / kept[-1] / "averages.npz"
    ) as averages:
        for key in averages.files:
            np.testing.assert_array_equal(
                averages[key], weights(tmp_path / "run")[key]
            )


@pytest.mark.parametrize("flag", ["--help", "--batch_size=0"])
def test_help_and_wrong_flags_need_no_tensorflow(flag):
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "bit_tf.train", flag],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 1
    assert "bit_tf.sources" in done.stderr
    assert "| tensorflow" not in done.stderr
    assert "| keras" not in done.stderr
