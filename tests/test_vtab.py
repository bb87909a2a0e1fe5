"""VTAB's tasks on generated sets, and its program."""

import io
import json
import subprocess
import sys

import numpy as np
import pytest
from absl import flags
from PIL import Image

from bit_tf import catalogue
from bit_tf import labelling
from bit_tf import sources
from bit_tf import tasks
from bit_tf import tfds_sets
from tests import programs
from tests.small_vtab import KITTI
from tests.small_vtab import SPRITES

ALL = (*catalogue.VTAB, *catalogue.DOWNSTREAM, *catalogue.VARIANTS)


@pytest.fixture(scope="module")
def tfds():
    return tfds_sets.import_tfds()


@pytest.mark.parametrize("entry", ALL, ids=lambda e: f"{e.group}_{e.name}")
def test_names_versions_and_features_are_tfds_own(entry, tfds, tmp_path):
    builder = tfds.builder(
        tfds_sets.full_name(entry.location), data_dir=str(tmp_path)
    )
    features = builder.info.features
    if entry.rule is None:
        key = (builder.info.supervised_keys or ("image", "label"))[1]
        label = getattr(features[key], "feature", features[key])
        assert label.num_classes == entry.classes
    else:
        # By the names under which they are written.
        known = _flat(features.get_serialized_info())
        assert set(entry.rule.features) <= set(known)
        assert "image" in known


def _flat(nested, prefix=""):
    found = {}
    for name, value in nested.items():
        if isinstance(value, dict):
            found |= _flat(value, f"{prefix}{name}/")
        else:
            found[prefix + name] = value
    return found


@pytest.mark.network
@pytest.mark.parametrize("entry", ALL, ids=lambda e: f"{e.group}_{e.name}")
def test_counts_are_tfds_own(entry, tfds):
    builder = tfds.builder(tfds_sets.full_name(entry.location))
    builder.download_and_prepare()
    for split, count in (
        (entry.train_split, entry.train_examples),
        (entry.eval_split, entry.eval_examples),
    ):
        if split:
            assert builder.info.splits[split].num_examples == count


@pytest.fixture(scope="module")
def prepared(tfds, tmp_path_factory):
    """Sets of the shape of KITTI and dSprites, made here."""

    class TinyKitti(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("3.1.0")

        def _info(self):
            return self.dataset_info_from_configs(
                features=tfds.features.FeaturesDict(
                    {
                        "image": tfds.features.Image(),
                        "objects": tfds.features.Sequence(
                            {
                                "type": tfds.features.ClassLabel(num_classes=8),
                                "location": tfds.features.Tensor(
                                    shape=(3,), dtype=np.float32
                                ),
                            }
                        ),
                    }
                )
            )

        def _split_generators(self, dl_manager):
            return {name: self._some(name) for name in ("train", "test")}

        def _some(self, name):
            # Nothing, a near van, a far car behind a near cyclist.
            scenes = (
                ([], []),
                ([1], [5.0]),
                ([0, 5], [40.0, 2.0]),
                ([0, 2], [15.0, 90.0]),
            )
            for index in range(16):
                types, distances = scenes[index % 4]
                image = np.full((40, 120, 3), 60 * (index % 4), np.uint8)
                yield (
                    f"{name}{index}",
                    {
                        "image": image,
                        "objects": {
                            "type": types,
                            "location": np.array(
                                [(0, 0, d) for d in distances], np.float32
                            ).reshape(-1, 3),
                        },
                    },
                )

        def _generate_examples(self):
            raise AssertionError("unused")

    class TinySprites(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("2.0.0")

        def _info(self):
            return self.dataset_info_from_configs(
                features=tfds.features.FeaturesDict(
                    {
                        "image": tfds.features.Image(shape=(64, 64, 1)),
                        "label_x_position": tfds.features.ClassLabel(
                            num_classes=32
                        ),
                    }
                )
            )

        def _split_generators(self, dl_manager):
            return {"train": self._some()}

        def _some(self):
            for index in range(32):
                image = np.zeros((64, 64, 1), np.uint8)
                image[:, 2 * index :] = 1
                yield index, {"image": image, "label_x_position": index}

        def _generate_examples(self):
            raise AssertionError("unused")

    path = tmp_path_factory.mktemp("tfds")
    for builder in (TinyKitti, TinySprites):
        builder(data_dir=path).download_and_prepare()
    return path


def load(entry, prepared):
    return sources.load(
        entry.task(), data_dir=str(prepared), log=lambda text: None
    )


def test_labels_come_from_the_stored_objects(prepared):
    train, evaluation = load(KITTI, prepared)
    assert train.class_counts().tolist() == [4, 4, 4, 4]
    assert evaluation.class_names == labelling.KITTI_DISTANCE.class_names
    for index, label in enumerate(evaluation.labels):
        # Its gray tells which scene an image is of.
        with Image.open(io.BytesIO(evaluation.contents[index])) as image:
            scene = image.getpixel((0, 0))[0] // 60
        assert label == (3, 0, 2, 1)[scene]


def test_splits_are_taken_from_the_files(prepared):
    train, evaluation = load(SPRITES, prepared)
    assert (len(train), len(evaluation)) == (20, 8)
    assert train.typical_size() == (64, 64)
    assert not set(train.contents) & set(evaluation.contents)
    with pytest.raises(ValueError, match="fixed splits and labels"):
        _parsed_task("--dataset=vtab:dmlab", "--eval_split=test")


def _parsed_task(*given):
    from bit_tf import data_flags

    values = flags.FLAGS
    values.unparse_flags()
    values(["test", *given])
    try:
        return data_flags.task()
    finally:
        values.unparse_flags()
        for flag in values.get_flags_for_module(data_flags.__name__):
            flag.unparse()


def test_a_task_brings_its_switches():
    task = _parsed_task("--dataset=vtab:dsprites_location")
    assert isinstance(task, tasks.Task)
    assert not task.random_flip and not task.random_crop
    assert task.pixel_scale == 255
    assert _parsed_task("--dataset=paper:flowers").location.startswith("oxford")


@pytest.fixture
def run(prepared, tmp_path):
    """Runs the program on two small tasks."""

    def call(*given, small=("--crop=32", "--total_steps=2"), **environment):
        return subprocess.run(
            [
                *(sys.executable, "-m", "tests.small_vtab", "--model=R26x0.5"),
                *(f"--data_dir={prepared}", f"--output={tmp_path / 'out'}"),
                *("--batch_size=4", "--runs=1", *small, *given),
            ],
            env=programs.shell() | environment,
            capture_output=True,
            text=True,
            cwd=programs.ROOT,
            check=False,
        )

    return call, tmp_path / "out"


def rows(output):
    first, *rest = (output / "results.jsonl").read_text().splitlines()
    assert "about" in json.loads(first)
    return [json.loads(line) for line in rest]


@pytest.mark.slow
def test_tasks_are_run_and_not_run_again(run):
    call, output = run
    done = call("--tasks=dsprites_location", "--runs=2")
    assert done.returncode == 0, done.stderr
    assert "dsprites_location  seed 1" in done.stdout
    assert [row["examples"] for row in rows(output)] == [8, 8]
    kept = (output / "results.jsonl").read_bytes()
    said = call("--runs=2").stdout
    assert "dsprites_location  seed" not in said
    assert "kitti_distance  seed 1" in said
    assert (output / "results.jsonl").read_bytes().startswith(kept)
    assert len(rows(output)) == 4
    # Of groups without tasks there is no mean.
    assert "structured" in said and "natural" not in said
    assert (output / "vtab.png").stat().st_size > 10_000
    done = call("--base_lr=0.5")
    assert done.returncode == 1 and "other settings" in done.stderr


@pytest.mark.slow
def test_a_search_selects_on_the_last_fifth_and_what_is_gone_is_named(run):
    call, output = run
    done = call(
        *("--search_trials=2", "--search_max_steps=2"),
        # Which is what is searched.
        small=(),
        SMALL_VTAB_DRAW="1",
        SMALL_VTAB_GONE="1",
    )
    assert done.returncode == 1
    assert "1 of 2 tasks are missing: gone" in done.stderr
    assert "gone: left out: unknown TensorFlow Datasets" in done.stdout
    found = [r for r in rows(output) if r["method"] == "search"]
    assert [r["train_examples"] for r in found] == [16, 16]
    assert [r["examples"] for r in found] == [4, 4]
    (final,) = (r for r in rows(output) if r["method"] == "run")
    assert (final["train_examples"], final["examples"]) == (20, 8)


def test_the_list_needs_nothing_else():
    done = programs.run("vtab", "--list")
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert len(lines) == 20
    assert "no flip; no crop" in next(
        line for line in lines if line.startswith("dsprites_location")
    )
    assert "no longer has" in done.stdout
    done = programs.run("vtab", "--model=R26x0.5")
    assert done.returncode == 1 and "--output is missing" in done.stderr
