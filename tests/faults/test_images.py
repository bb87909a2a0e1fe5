"""Every kind of image, in every program: used, or named with a reason."""

import csv
import json
import pathlib
import subprocess
import sys

import pytest
import tensorflow as tf

from tests.conftest import save_image
from tests.faults import zoo

TRAIN = (
    "--model=R26x0.5",
    "--crop=32",
    "--batch_size=4",
    "--total_steps=4",
    "--base_lr=0.02",
)

MORE_MB = 300
# Without bit_tf, of a directory: which files are refused, the most memory.
SERVE = """
import json, pathlib, resource, sys
import tensorflow as tf
call = tf.saved_model.load(sys.argv[1]).signatures["serving_default"]
files = sorted(pathlib.Path(sys.argv[2]).iterdir())
found = call(image_bytes=tf.constant([f.read_bytes() for f in files]))
refused = [f.name for f, e in zip(files, found["error"].numpy()) if e]
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
print(json.dumps([refused, peak]))
"""


@pytest.fixture(scope="module")
def animals(tmp_path_factory):
    """A folder set of two classes, one of them the zoo, train/ and test/."""
    root = tmp_path_factory.mktemp("zoo")
    for split in ("train", "test"):
        for number in range(4):
            save_image(root / split / "fine" / f"{number}.png", value=90)
        expected = zoo.write(root / split / "zoo")
    return root, expected


@pytest.fixture(scope="module")
def trained(trainings, animals, tmp_path_factory):
    """A run that passes over what it cannot use."""
    root, _ = animals
    path = tmp_path_factory.mktemp("trained") / "run"
    life = trainings.run(
        *("train", f"--dataset=folder:{root}", f"--workdir={path}", *TRAIN),
        "--on_bad_image=skip",
    )
    assert life.poll() == 0, life.printed()
    return path, life


def judge(row, expected, refused, where) -> None:
    """Counts a fault per file: refused with a reason, or used."""
    for name, outcome in expected.items():
        reasons = [reason for file, reason in refused.items() if name in file]
        held = outcome == zoo.EITHER or (len(reasons) == 1) == (
            outcome == zoo.REFUSED
        )
        row.check(held and all(reasons), f"{where}: {name}: {reasons}")


DEMANDED = "used, or refused with path and reason; no program fails"


@pytest.mark.campaign
def test_training_passes_over_what_it_cannot_use(campaign, animals, trained):
    _, expected = animals
    path, life = trained
    with campaign("R8 image zoo, train", DEMANDED) as row:
        judged = json.loads((path / "evaluation.json").read_text())
        refused = {
            entry["file"]: entry["reason"]
            for entry in judged["left_out"]
            if "test" in pathlib.Path(entry["file"]).parts
        }
        judge(row, expected, refused, "train")
        used = 4 + len(expected) - len(refused)
        row.check(judged["examples"] == used, f"{judged['examples']}, {used}")
        row.faults -= 1


@pytest.mark.campaign
def test_evaluation_counts_what_it_passes_over(
    campaign, animals, trained, trainings, tmp_path
):
    root, expected = animals
    with campaign("R8 image zoo, evaluate", DEMANDED) as row:
        life = trainings.run(
            "evaluate",
            f"--model={trained[0]}",
            f"--dataset=folder:{root}",
            f"--output={tmp_path / 'found'}",
            "--on_bad_image=skip",
        )
        assert life.poll() == 0, life.printed()
        judged = json.loads((tmp_path / "found/evaluation.json").read_text())
        refused = {
            entry["file"]: entry["reason"]
            for entry in judged["left_out"]
            if "test" in pathlib.Path(entry["file"]).parts
        }
        judge(row, expected, refused, "evaluate")


@pytest.mark.campaign
def test_prediction_names_what_it_passes_over(
    campaign, animals, trained, trainings
):
    root, expected = animals
    with campaign("R8 image zoo, predict", DEMANDED) as row:
        life = trainings.run(
            "predict", f"--model={trained[0]}", root / "test" / "zoo"
        )
        assert life.poll() == 0, life.printed()
        lines = life.printed().splitlines()
        begin = next(i for i, t in enumerate(lines) if t.startswith("file,"))
        found = list(csv.DictReader(lines[begin:]))
        refused = {r["file"]: r["error"] for r in found if r["error"]}
        # A list of files that ends in a folder has no pipes and no loops.
        judge(
            row,
            {
                n: e
                for n, e in expected.items()
                if any(n in r["file"] for r in found)
            },
            refused,
            "predict",
        )
        assert len(found) > 40


@pytest.mark.campaign
def test_a_saved_model_answers_for_every_image(campaign, animals, trained):
    root, expected = animals
    with campaign("R8 image zoo, serve", DEMANDED) as row:
        call = tf.saved_model.load(str(trained[0] / "saved_model")).signatures[
            "serving_default"
        ]
        directory = root / "test" / "zoo"
        names = [n for n in expected if (directory / n).is_file()]
        found = call(
            image_bytes=tf.constant(
                [(directory / n).read_bytes() for n in names]
            )
        )
        for name, error in zip(names, found["error"].numpy(), strict=True):
            # Formats that TensorFlow may not know.
            is_odd = any(kind in name for kind in ("WEBP", "TIFF"))
            wanted = expected[name]
            row.check(
                wanted == zoo.EITHER
                or is_odd
                or bool(error) == (wanted == zoo.REFUSED),
                f"{name}: {error}",
            )
        assert bool(tf.reduce_all(tf.math.is_finite(found["probabilities"])))


@pytest.mark.campaign
def test_what_is_huge_is_not_decoded(campaign, trained, trainings, tmp_path):
    demanded = f"refused; at most {MORE_MB} MB more than without them"
    bombs = zoo.bombs()
    with campaign("R8 images of gigabytes", demanded) as row:
        peaks = []
        for content in ({}, bombs):
            root = tmp_path / str(len(content))
            for folder in ("train/fine", "train/zoo", "test/fine", "test/zoo"):
                for number in range(4):
                    save_image(root / folder / f"{number}.png", value=90)
            for name, data in content.items():
                (root / "train/zoo" / name).write_bytes(data)
                (root / "test/zoo" / name).write_bytes(data)
            data = (f"--dataset=folder:{root}", "--on_bad_image=skip")
            output = root / "output"
            lives = [
                trainings.run("train", *data, f"--workdir={output}", *TRAIN),
                trainings.run(
                    "evaluate",
                    *(*data, f"--model={trained[0]}", f"--output={output}_2"),
                ),
                trainings.run(
                    "predict", f"--model={trained[0]}", root / "test" / "zoo"
                ),
            ]
            told = [
                (output / "evaluation.json").read_text(),
                (root / "output_2" / "evaluation.json").read_text(),
                lives[2].printed(),
            ]
            for life, text in zip(lives, told, strict=True):
                assert life.poll() == 0, life.printed()
                for name in content:
                    row.check(name in text, f"{name} is not in {text}")
            served = subprocess.run(
                [
                    *(sys.executable, "-c", SERVE),
                    *(trained[0] / "saved_model", root / "test" / "zoo"),
                ],
                check=True,
                capture_output=True,
                text=True,
            )
            refused, peak = json.loads(served.stdout)
            for name in content:
                row.check(name in refused, f"served: {name}")
            peaks.append([*(life.peak_mb for life in lives), peak])
        more = [b - a for a, b in zip(*peaks, strict=True)]
        for mb in more:
            row.check(mb < MORE_MB, f"{more} MB more")
        row.seen["most_mb_more"] = round(max(more))


def test_without_a_word_the_first_bad_file_ends_it(
    campaign, animals, checks, tmp_path
):
    _, expected = animals
    demanded = "one line with the file, before the first step"
    refused = [n for n, outcome in expected.items() if outcome == zoo.REFUSED]
    with campaign("R8 image zoo, one at a time", demanded) as row:
        for name in refused:
            root = tmp_path / str(row.faults)
            for number in range(4):
                save_image(root / "fine" / f"{number}.png", value=90)
            (root / "zoo").mkdir()
            zoo_file = animals[0] / "train" / "zoo" / name
            zoo_file.rename(root / "zoo" / name)
            try:
                life = checks.run(
                    "train",
                    f"--dataset=folder:{root}",
                    f"--workdir={tmp_path / 'run'}",
                    *TRAIN,
                    "--only_check_flags",
                )
            finally:
                (root / "zoo" / name).rename(zoo_file)
            last = life.printed().strip().splitlines()[-1]
            row.check(
                life.poll() == 1
                and name in last
                and "Traceback" not in life.printed(),
                f"{name}: {life.printed()[-500:]}",
            )
