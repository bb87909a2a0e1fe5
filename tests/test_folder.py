"""Folders are read whole, and what is wrong with them is said in one line."""

import os

import numpy as np
import pytest
from PIL import Image

from bit_tf import folder
from bit_tf import image_file
from tests.conftest import save_image


def test_train_and_test_are_found(image_folder):
    train, evaluation, remarks = folder.load(str(image_folder))
    assert train.class_names == ("dark", "light")
    assert train.class_counts().tolist() == [6, 6]
    assert evaluation.class_counts().tolist() == [5, 5]
    assert train.names[0] == "dark/0.png"
    assert train.typical_size() == (20, 24)
    assert not remarks


@pytest.mark.parametrize("name", ["val", "validation", "valid"])
def test_other_names_of_the_evaluation_folder(image_folder, name):
    (image_folder / "test").rename(image_folder / name)
    _, evaluation, _ = folder.load(str(image_folder))
    assert len(evaluation) == 10


def test_splits_can_be_named(image_folder):
    (image_folder / "test").rename(image_folder / "mine")
    _, evaluation, _ = folder.load(str(image_folder), eval_split="mine")
    assert len(evaluation) == 10
    with pytest.raises(ValueError, match="no split 'other'"):
        folder.load(str(image_folder), eval_split="other")


@pytest.mark.parametrize(
    ("train_name", "test_name"), [("Train", "Test"), ("training", "testing")]
)
def test_other_spellings_of_the_splits(image_folder, train_name, test_name):
    (image_folder / "train").rename(image_folder / train_name)
    (image_folder / "test").rename(image_folder / test_name)
    train, evaluation, _ = folder.load(str(image_folder))
    assert train.class_names == ("dark", "light")
    assert len(evaluation) == 10


def test_split_names_may_end_in_a_slash(image_folder):
    (image_folder / "test").rename(image_folder / "mine")
    _, evaluation, _ = folder.load(
        str(image_folder), train_split="train/", eval_split="mine/"
    )
    assert len(evaluation) == 10


def test_a_folder_is_not_evaluated_on_what_it_trained_on(image_folder):
    with pytest.raises(ValueError, match="both 'test'"):
        folder.load(str(image_folder), train_split="test", eval_split="test")
    train, evaluation, _ = folder.load(str(image_folder), train_split="test")
    assert not set(train.contents) & set(evaluation.contents)


def test_names_that_are_not_text_are_refused(image_folder):
    source = image_folder / "train" / "dark" / "0.png"
    odd = os.fsencode(source.parent) + b"/caf\xe9.png"
    os.link(os.fsencode(source), odd)
    with pytest.raises(ValueError, match="not UTF-8 text") as error:
        folder.load(str(image_folder))
    str(error.value).encode()
    os.unlink(odd)
    (image_folder / "train" / "new\nline").mkdir()
    with pytest.raises(ValueError, match="rename it"):
        folder.load(str(image_folder))


def test_one_folder_is_split_by_a_seed(tmp_path):
    for name in ("a", "b"):
        for number in range(20):
            save_image(tmp_path / name / f"{number}.png", value=90)

    def names(seed):
        train, evaluation, remarks = folder.load(str(tmp_path), split_seed=seed)
        assert not set(train.names) & set(evaluation.names)
        assert train.class_counts().tolist() == [16, 16]
        assert evaluation.class_counts().tolist() == [4, 4]
        assert "held out" in remarks[0]
        return evaluation.names

    assert names(0) == names(0)
    assert names(0) != names(1)


def test_a_class_may_be_called_train(tmp_path):
    for name in ("bus", "train"):
        for number in range(4):
            save_image(tmp_path / name / f"{number}.png", value=90)
    train, _, _ = folder.load(str(tmp_path))
    assert train.class_names == ("bus", "train")


def test_hidden_files_and_deeper_folders(image_folder):
    (image_folder / "train" / "dark" / ".DS_Store").write_bytes(b"x")
    (image_folder / "train" / "dark" / "Thumbs.db").write_bytes(b"x")
    (image_folder / "train" / ".cache").mkdir()
    save_image(image_folder / "train" / "dark" / "more" / "0.png", value=60)
    train, _, _ = folder.load(str(image_folder))
    assert train.class_counts().tolist() == [7, 6]


def test_classes_without_test_images_are_remarked(image_folder):
    for split in ("train",):
        save_image(image_folder / split / "extra" / "0.png", value=100)
    _, _, remarks = folder.load(str(image_folder))
    assert "1 of 3 classes" in remarks[0]


def test_extensions_do_not_decide(image_folder):
    file = image_folder / "train" / "dark" / "0.png"
    Image.new("RGB", (24, 20)).save(file, format="JPEG")
    train, _, _ = folder.load(str(image_folder))
    assert len(train) == 12


def broken_text(path):
    path.write_text("no image")


def broken_empty(path):
    path.write_bytes(b"")


def broken_truncated(path):
    whole = path.with_name("whole.jpg")
    save_image(whole, value=100, size=(200, 200))
    path.write_bytes(whole.read_bytes()[:-2000])
    whole.unlink()


def broken_tiff(path):
    Image.new("F", (8, 8)).save(path, format="TIFF")


def broken_ico(path):
    Image.new("RGB", (8, 8)).save(path, format="ICO")


def broken_pipe(path):
    os.mkfifo(path)


def broken_link(path):
    path.symlink_to("nowhere")


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (broken_text, "not an image"),
        (broken_empty, "empty file"),
        (broken_truncated, "truncated"),
        (broken_tiff, "TIFF of mode F"),
        (broken_ico, "not an image that is known"),
        (broken_pipe, "not a regular file"),
        (broken_link, "No such file"),
    ],
)
def test_unreadable_files_are_named_with_the_reason(
    image_folder, spoil, reason
):
    spoil(image_folder / "train" / "dark" / "bad.jpg")
    with pytest.raises(ValueError, match=reason) as error:
        folder.load(str(image_folder))
    assert "train/dark/bad.jpg" in str(error.value)
    assert "1 of 23 files" in str(error.value)
    assert "\n" not in str(error.value)


def test_too_many_pixels_are_seen_in_the_header(image_folder):
    reading = image_file.Reading(max_pixels=479)
    with pytest.raises(ValueError, match="24x20 pixels are more than 479"):
        folder.load(str(image_folder), reading=reading)


def test_what_cannot_be_used_is_left_out_on_demand(image_folder):
    broken_text(image_folder / "train" / "dark" / "bad.jpg")
    reading = image_file.Reading(on_bad="skip")
    train, evaluation, remarks = folder.load(str(image_folder), reading=reading)
    assert (len(train), len(evaluation)) == (12, 10)
    assert "train/dark/bad.jpg" in remarks[0]
    assert [name for name, _ in train.left_out] == ["train/dark/bad.jpg"]
    for file in (image_folder / "test" / "dark").iterdir():
        broken_text(file)
    with pytest.raises(ValueError, match="no image of class 'dark'"):
        folder.load(str(image_folder), reading=reading)


def test_whole_numbers_are_numbered_as_such(tmp_path):
    for name in ("2", "10", "1"):
        for number in range(2):
            save_image(tmp_path / name / f"{number}.png", value=90)
    train, _, _ = folder.load(str(tmp_path))
    assert train.class_names == ("1", "2", "10")


def empty_folder(root):
    return root / "empty"


def missing(root):
    return root / "missing"


def a_file(root):
    return root / "train" / "dark" / "0.png"


def one_class(root):
    for split in ("train", "test"):
        for file in (root / split / "light").iterdir():
            file.unlink()
        (root / split / "light").rmdir()
    return root


def empty_class(root):
    (root / "train" / "none").mkdir()
    return root


def unlabelled(root):
    for file in sorted(root.rglob("*.png")):
        file.rename(file.parents[1] / f"{file.parent.name}{file.name}")
    for directory in root.glob("*/*/"):
        if directory.is_dir():
            directory.rmdir()
    return root


def foreign_class(root):
    save_image(root / "test" / "red" / "0.png", value=80)
    return root


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (missing, "does not exist"),
        (a_file, "is not a folder"),
        (empty_folder, "has no class"),
        (one_class, "only class 'dark'"),
        (empty_class, "no images: 'none'"),
        (unlabelled, "has no class"),
        (foreign_class, "class 'red'"),
    ],
)
def test_unusable_folders_say_why(image_folder, spoil, reason):
    (image_folder / "empty").mkdir()
    root = spoil(image_folder)
    if root == image_folder:
        (image_folder / "empty").rmdir()
    with pytest.raises(ValueError, match=reason) as error:
        folder.load(str(root))
    assert "\n" not in str(error.value)


def test_real_folders(shared_data):
    train, evaluation, remarks = folder.load(str(shared_data / "sign_digits"))
    assert (len(train), len(evaluation)) == (1544, 518)
    assert train.typical_size() == (100, 100)
    assert not remarks
    assert np.unique(train.labels).tolist() == list(range(10))
