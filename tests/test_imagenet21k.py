"""The set of ImageNet-21k is made of its archive, and trained on."""

import io
import tarfile

import numpy as np
import pytest
from PIL import Image

from bit_tf import imagenet21k
from bit_tf import labels
from bit_tf import sources
from bit_tf import tasks
from tests import programs

SYNSETS = ("n00004475", "n01440764", "n15102894")


def jpeg(value):
    buffer = io.BytesIO()
    Image.fromarray(np.full((9, 12, 3), value, np.uint8)).save(
        buffer, format="JPEG"
    )
    return buffer.getvalue()


def add(archive, name, content):
    info = tarfile.TarInfo(name)
    info.size = len(content)
    archive.addfile(info, io.BytesIO(content))


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """Three synsets of four images; one is a web page, one is cut off."""
    path = tmp_path_factory.mktemp("archive") / "fall11_whole.tar"
    with tarfile.open(path, "w") as outer:
        for number, synset in enumerate(SYNSETS):
            buffer = io.BytesIO()
            with tarfile.open(fileobj=buffer, mode="w") as inner:
                for index in range(4):
                    content = jpeg(40 * number + 10 * index)
                    if (number, index) == (1, 2):
                        content = b"<html>not found</html>"
                    if (number, index) == (2, 3):
                        content = content[:-6]
                    add(inner, f"{synset}_{index}.JPEG", content)
            add(outer, f"{synset}.tar", buffer.getvalue())
    return path


def test_the_archive_becomes_a_set_with_the_classes_of_bit_m(archive, tmp_path):
    done = programs.run(
        "prepare", f"--archive={archive}", f"--data_dir={tmp_path}"
    )
    assert done.returncode == 0, done.stderr
    assert "2 files were left out" in done.stdout
    assert "n01440764_2.JPEG first" in done.stdout
    assert "10 images in" in done.stdout
    train, evaluation = sources.load(
        tasks.parse(
            "imagenet21k", train_split="full[3:]", eval_split="full[:3]"
        ),
        data_dir=str(tmp_path),
    )
    assert (len(train), len(evaluation)) == (7, 3)
    assert train.is_multi_label
    names = [synset for synset, _ in labels.synsets("imagenet21k")]
    assert list(train.class_names) == names and len(names) == 21_843
    whole, _ = sources.load(
        tasks.parse("imagenet21k", train_split="full", eval_split="full"),
        data_dir=str(tmp_path),
    )
    for index in range(len(whole)):
        image, found = whole.parse(whole.read([index])[0])
        pixel = np.asarray(Image.open(io.BytesIO(image.numpy())))[0, 0, 0]
        assert names[int(found[0])] == SYNSETS[round(int(pixel)) // 40]


def test_another_archive_is_one_line(tmp_path, archive):
    wrong = tmp_path / "wrong.tar"
    with tarfile.open(wrong, "w") as outer:
        add(outer, "n1.jpg", jpeg(1))
    for path, wanted in (
        (wrong, "n1.jpg in it is no tar"),
        (__file__, "cannot be read"),
    ):
        with pytest.raises(ValueError, match=wanted):
            list(imagenet21k.images(path))
    done = programs.run("prepare", f"--archive={tmp_path / 'none.tar'}")
    assert done.returncode == 1
    assert "is not there" in done.stderr
    assert len(done.stderr.splitlines()) == 1
