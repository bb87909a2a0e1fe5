"""The converter: all formats, checked on their outputs, nothing lost."""

import os

import numpy as np
import pytest

from bit_tf import conversion
from bit_tf import weights
from bit_tf import weights_file
from tests import programs
from tests import published

ARRAYS = published.arrays("R26x0.5", 5)
TARGETS = ("b.npz", "b.safetensors", "b.weights.h5", "b.keras", "folder")


def convert(*arguments, **kwargs):
    return programs.run("convert", *arguments, **kwargs)


@pytest.fixture
def source(tmp_path):
    np.savez(tmp_path / "a.npz", **ARRAYS)
    return tmp_path / "a.npz"


def silent(text):
    pass


@pytest.mark.parametrize("name", TARGETS)
def test_there_and_back_is_the_same_file(name, source, tmp_path):
    there, back = tmp_path / name, tmp_path / "back.npz"
    assert conversion.convert(source, there, log=silent) <= 1e-6
    assert conversion.convert(there, back, log=silent) <= 1e-6
    with np.load(back) as stored:
        assert set(stored.files) == set(ARRAYS)
        for key, array in ARRAYS.items():
            np.testing.assert_array_equal(stored[key], array)


def test_a_released_h5_becomes_an_npz(tmp_path):
    published.write_h5(tmp_path / "a.h5", ARRAYS)
    conversion.convert(tmp_path / "a.h5", tmp_path / "a.npz", log=silent)
    with np.load(tmp_path / "a.npz") as stored:
        for key, array in ARRAYS.items():
            np.testing.assert_array_equal(stored[key], array)


def test_half_the_bytes_are_written_and_compared(source, tmp_path, monkeypatch):
    half = tmp_path / "half.npz"
    found = conversion.convert(source, half, dtype="float16", log=silent)
    assert 1e-5 < found <= conversion.HALF_TOLERANCE
    assert half.stat().st_size < 0.52 * source.stat().st_size
    with np.load(half) as stored:
        for key, array in ARRAYS.items():
            np.testing.assert_array_equal(stored[key], array.astype("float16"))
    monkeypatch.setattr(conversion, "HALF_TOLERANCE", found / 2)
    with pytest.raises(RuntimeError, match="not kept"):
        conversion.convert(source, half, dtype="float16", log=silent)


def test_the_head_can_be_left_out(source, tmp_path):
    told = []
    conversion.convert(
        source, tmp_path / "b.npz", headless=True, log=told.append
    )
    with weights_file.opened(tmp_path / "b.npz") as stored:
        assert stored.num_classes is None
    assert "no head" in told[0] and "features of 2 images" in told[1]


def test_a_wrong_result_is_not_kept(source, tmp_path, monkeypatch):
    (tmp_path / "b.npz").write_bytes(b"older")
    written = weights.save

    def spoiled(path, model, **kwargs):
        bias = model.get_layer("head").conv.bias
        bias.assign(bias + 1e-3)
        written(path, model, **kwargs)

    monkeypatch.setattr(weights, "save", spoiled)
    with pytest.raises(RuntimeError, match="not kept"):
        conversion.convert(source, tmp_path / "b.npz", log=silent)
    assert (tmp_path / "b.npz").read_bytes() == b"older"
    assert {p.name for p in tmp_path.iterdir()} == {"a.npz", "b.npz"}


def test_a_folder_of_something_else_is_not_replaced(source, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "photo.jpg").write_bytes(b"dear")
    done = convert(source, tmp_path / "mine")
    assert done.returncode == 1
    assert "is not a transformers folder" in done.stderr
    assert (tmp_path / "mine" / "photo.jpg").exists()


def test_the_program_says_what_it_did(source, tmp_path):
    done = convert(source, "b.safetensors", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    first, second = done.stdout.splitlines()
    assert first == f"{source}: R26x0.5, 5 classes, 3,497,893 parameters"
    assert second.startswith("b.safetensors: read back, logits and features")
    assert os.listdir(tmp_path) and (tmp_path / "b.safetensors").exists()


def test_the_list_has_every_published_file():
    done = convert("--list")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 320
    assert lines[1].split()[:5] == [
        "BiT-XS-R26x0.5",
        "200",
        "softmax",
        "48",
        "7",
    ]
    assert lines[0].split()[:3] == ["name", "classes", "head"]
    row = next(line for line in lines if line.startswith("BiT-M-R152x4 "))
    assert row.split() == [
        "BiT-M-R152x4",
        "21843",
        "sigmoid",
        "224",
        "4429",
        ".npz",
        ".h5",
    ]


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        ([], "give SRC and DST"),
        (["a.npz"], "give SRC and DST"),
        (["a.npz", "b.npz", "c.npz"], "unexpected argument 'c.npz'"),
        (["none.npz", "b.npz"], "none.npz do not exist"),
        (["a.npz", "b.pth"], "b.pth: its name says no format"),
        (["a.npz", "b.h5"], "b.h5: its name says no format"),
        (["BiT-M-R50x1.pth", "b.npz"], "BiT-M-R50x1.pth do not exist"),
        (["BiT-M-R152x2.h5", "b.npz"], "not published as .h5"),
        (["--list", "a.npz"], "--list takes no SRC"),
        (["--list", "--dtype=float16"], "--list takes no --dtype"),
        (["text.npz", "b.npz"], "cannot be read as .npz"),
        (["BiT-M-R50x1", "b.npz", "--mirror=ftp://x"], "ftp://x"),
        (["a.npz", "nowhere/b.npz"], "nowhere"),
        (["a.npz", "b.safetensors", "--dtype=float16"], "is for .npz, not for"),
        (["a.npz", "b.npz", "--dtype=bfloat16"], "float32|float16"),
    ],
)
def test_wrong_arguments_are_one_line(arguments, wanted, source, tmp_path):
    (tmp_path / "text.npz").write_text("no zip")
    done = convert(*arguments, cwd=tmp_path)
    assert done.returncode == 1
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("bit_tf.convert: ") and wanted in line
