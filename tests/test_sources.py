"""Tasks by name: the shipped set, and TensorFlow Datasets."""

import subprocess
import sys
import zipfile

import numpy as np
import pytest

from bit_tf import sources
from bit_tf import tasks
from bit_tf import tfds_sets
from tests.conftest import ROOT


def test_the_shipped_set_is_what_its_licence_file_says():
    train, evaluation = sources.load(tasks.parse("builtin:patches"))
    assert (len(train), len(evaluation)) == (480, 320)
    assert len(train.class_names) == 10
    assert set(train.class_counts()) == {48}
    assert set(evaluation.class_counts()) == {32}
    assert train.typical_size() == (64, 64)
    assert train.in_memory
    assert train.fingerprint() != evaluation.fingerprint()


def test_the_shipped_set_is_small():
    import importlib.resources

    path = importlib.resources.files("bit_tf") / "assets" / "patches.zip"
    assert path.stat().st_size < 1_500_000
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None


@pytest.mark.parametrize(
    ("text", "kind", "location"),
    [
        ("folder:/a:b/c", "folder", "/a:b/c"),
        ("builtin:patches", "builtin", "patches"),
        ("cifar10", "tfds", "cifar10"),
        ("oxford_flowers102:2.*", "tfds", "oxford_flowers102:2.*"),
        (
            "imagenet2012_subset/1pct:5.0.0",
            "tfds",
            "imagenet2012_subset/1pct:5.0.0",
        ),
    ],
)
def test_dataset_texts(text, kind, location):
    task = tasks.parse(text)
    assert (task.kind, task.location) == (kind, location)


@pytest.mark.parametrize(
    "text", ["", "folder:", "builtin:", "csv:", "a b", "../x", "cifar10:"]
)
def test_dataset_texts_that_mean_nothing(text):
    with pytest.raises(ValueError, match="folder:|builtin:patches"):
        tasks.parse(text)


def test_kinds_of_data_sets_are_listed():
    with pytest.raises(ValueError) as error:
        tasks.parse("")
    for kind in tasks.KINDS:
        assert f" {kind}:" in str(error.value)
    assert ",," not in str(error.value)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A data set prepared by TensorFlow Datasets itself, no network."""
    tfds = tfds_sets.import_tfds()

    class TinyColours(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("2.1.0")

        def _info(self):
            return self.dataset_info_from_configs(
                features=tfds.features.FeaturesDict(
                    {
                        "image": tfds.features.Image(shape=(None, None, 3)),
                        "label": tfds.features.ClassLabel(
                            names=["red", "green", "blue"]
                        ),
                    }
                ),
                supervised_keys=("image", "label"),
            )

        def _split_generators(self, dl_manager):
            return {"train": self._examples(30), "test": self._examples(12)}

        def _examples(self, count):
            for index in range(count):
                image = np.zeros((20 + index % 3, 30, 3), np.uint8)
                image[:, :, index % 3] = 255
                yield index, {"image": image, "label": index % 3}

        def _generate_examples(self):
            raise AssertionError("unused")

    path = tmp_path_factory.mktemp("tfds")
    TinyColours(data_dir=path).download_and_prepare()
    return path


def load(prepared, name="tiny_colours", **kwargs):
    return sources.load(
        tasks.parse(name, **kwargs), data_dir=str(prepared), log=lambda _: None
    )


def test_a_tfds_name_gives_train_and_test(prepared):
    train, evaluation = load(prepared)
    assert (len(train), len(evaluation)) == (30, 12)
    assert train.class_names == ("red", "green", "blue")
    assert train.class_counts().tolist() == [10, 10, 10]
    assert train.typical_size() == (21, 30)
    assert train.in_memory


def test_a_prepared_set_is_read_without_its_script(prepared):
    code = (
        "from bit_tf import sources, tasks;"
        "train, _ = sources.load(tasks.parse('tiny_colours:2.*'), "
        f"data_dir={str(prepared)!r}); print(len(train), train.class_names)"
    )
    printed = subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        capture_output=True,
        text=True,
        cwd=ROOT,
    ).stdout
    assert printed == "30 ('red', 'green', 'blue')\n"


def test_versions_and_split_texts(prepared):
    train, evaluation = load(
        prepared,
        "tiny_colours:2.*",
        train_split="train[:50%]+train[27:30]",
        eval_split="train[15:27]",
    )
    assert (len(train), len(evaluation)) == (18, 12)


@pytest.mark.parametrize(
    ("name", "split", "names"),
    [
        ("tiny_colours", "train[:0]", "is empty"),
        ("tiny_colours", "nosplit", "nosplit"),
        ("tiny_colours:9.9.9", None, "tiny_colours"),
        ("no_such_set", None, "no_such_set"),
    ],
)
def test_wrong_names_and_splits_are_one_line(prepared, name, split, names):
    with pytest.raises(ValueError, match=names) as error:
        load(prepared, name, train_split=split)
    assert "\n" not in str(error.value)


def test_labels_belong_to_their_images(prepared):
    import tensorflow as tf

    train, _ = load(prepared)
    for content, label in zip(train.contents, train.labels, strict=True):
        image = tf.io.decode_image(content).numpy()
        assert image[0, 0].argmax() == label


def test_too_much_for_memory_is_refused_with_a_way_out(prepared, monkeypatch):
    monkeypatch.setattr(tfds_sets, "MAX_BYTES_IN_MEMORY", 100)
    with pytest.raises(ValueError, match=r"test\[:10%\].*array_record"):
        load(prepared)
