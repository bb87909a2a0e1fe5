"""Planted duplicates are found, and pictures that only look alike are not."""

import csv
import io

import numpy as np
import pytest
from PIL import Image

from bit_tf import classifier as classifier_lib
from bit_tf import duplicates
from bit_tf import prediction
from bit_tf import resnet_v2
from bit_tf import weights
from tests import programs


def scene(seed, side=96):
    """Blots of colour, none like another."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:side, :side] / side
    pixels = np.full((side, side, 3), rng.uniform(60, 190, 3))
    for _ in range(12):
        y, x, size = rng.uniform(0, 1, 3)
        blot = np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / (0.02 * size))
        pixels += blot[:, :, None] * rng.uniform(-120, 120, 3)
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def resized(image):
    return image.resize((50, 47), Image.Resampling.BICUBIC)


def flipped(image):
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)


def cropped(image):
    # 5 % of each side, from a corner and from within.
    return image.crop((0, 3, 91, 94))


def recompressed(image):
    return image


def all_at_once(image):
    return flipped(cropped(image)).resize((80, 80))


@pytest.fixture(scope="module")
def signed(tmp_path_factory):
    root = tmp_path_factory.mktemp("scenes")
    files = []
    for seed in range(60):
        scene(seed).save(root / f"{seed:03}.png")
        files.append(str(root / f"{seed:03}.png"))
    return duplicates.sign(files), root


@pytest.mark.parametrize(
    "change", [resized, flipped, cropped, recompressed, all_at_once]
)
def test_changed_copies_are_found_and_nothing_else(signed, change, tmp_path):
    first, _ = signed
    files = []
    for seed in range(20):
        change(scene(seed)).save(tmp_path / f"{seed}.jpg", quality=40)
        files.append(str(tmp_path / f"{seed}.jpg"))
    pairs = duplicates.find(first, duplicates.sign(files))
    assert [(p.first, p.second) for p in pairs] == [(i, i) for i in range(20)]
    mirrored = change in (flipped, all_at_once)
    assert {p.how for p in pairs} == {
        "mirror image" if mirrored else "same picture"
    }


def test_there_are_none_among_different_pictures(signed):
    assert duplicates.find(signed[0]) == []


def test_equal_files_are_pairs_whatever_is_on_them(tmp_path):
    files = []
    for name, value in (("a", 9), ("b", 9), ("c", 12), ("d", 9)):
        # Plain: nothing to correlate.
        Image.new("RGB", (30, 30), (value,) * 3).save(tmp_path / f"{name}.png")
        files.append(str(tmp_path / f"{name}.png"))
    (tmp_path / "e.png").write_text("no image")
    found = duplicates.sign([*files, str(tmp_path / "e.png")])
    assert [name for name, _ in found.bad] == [str(tmp_path / "e.png")]
    pairs = duplicates.find(found)
    assert [(p.first, p.second, p.how) for p in pairs] == [
        (0, 1, "equal files"),
        (0, 3, "equal files"),
        (1, 3, "equal files"),
    ]


def test_real_photos(shared_data, tmp_path):
    files = sorted(map(str, (shared_data / "grocery" / "test").rglob("*.jpg")))
    files = files[::5][:300]
    first = duplicates.sign(files)
    copies = []
    for index, file in enumerate(files[:60]):
        with Image.open(file) as image:
            width, height = image.size
            cut = image.convert("RGB").crop(
                (0, 0, round(0.95 * width), round(0.95 * height))
            )
        (flipped(cut) if index % 2 else resized(cut)).save(
            tmp_path / f"{index}.jpg", quality=60
        )
        copies.append(str(tmp_path / f"{index}.jpg"))
    pairs = duplicates.find(first, duplicates.sign(copies))
    found = {p.second for p in pairs if p.first == p.second}
    others = [p for p in pairs if p.first != p.second]
    assert len(found) >= 57 and len(others) <= 3


@pytest.mark.thorough
def test_the_program_lists_shows_and_judges(tmp_path):
    for split, seeds in (("train", range(8)), ("test", range(6, 12))):
        for seed in seeds:
            folder = tmp_path / split / ("a<b>" if seed % 2 else "c")
            folder.mkdir(parents=True, exist_ok=True)
            ending = "jpg" if split == "test" else "png"
            scene(seed).save(folder / f"{seed}.{ending}")
    model = resnet_v2.build("R26x0.5", 2, seed=0)
    weights.save(tmp_path / "model.npz", model)
    done = programs.run(
        "dedup",
        *(tmp_path / "train", tmp_path / "test"),
        f"--output={tmp_path / 'out'}",
    )
    assert done.returncode == 0, done.stderr
    assert "between the sets: 2 pairs, 2 of 6 images" in done.stdout
    text = (tmp_path / "out" / "duplicates.csv").read_text()
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [row["second"].split("/")[-1] for row in rows] == ["7.jpg", "6.jpg"]
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count("<figure>") == 2 and "a&lt;b&gt;" in page
    assert "<b>" not in page.split("<body>")[1]
    done = programs.run(
        "dedup",
        *(tmp_path / "train", tmp_path / "test", "--noinside"),
        *(f"--output={tmp_path / 'out'}", f"--model={tmp_path / 'model.npz'}"),
    )
    assert done.returncode == 0, done.stderr
    assert "no accuracy: folder 'a<b>' of TEST is none" in done.stdout
    text = (tmp_path / "out" / "duplicates.csv").read_text()
    cosines = [
        float(row["feature_similarity"])
        for row in csv.DictReader(io.StringIO(text))
    ]
    assert len(cosines) == 2
    classifier = classifier_lib.load(tmp_path / "model.npz")
    names = [rows[0]["first"], rows[0]["second"]]
    one, two = (
        found.features
        for found in prediction.predict(classifier, names, features=True)
    )
    expected = one @ two / np.linalg.norm(one) / np.linalg.norm(two)
    assert cosines[0] == pytest.approx(expected, abs=1e-4)
    done = programs.run(
        "dedup",
        *(tmp_path / "train", tmp_path / "test", "--noinside"),
        *(f"--output={tmp_path / 'out'}", f"--model={tmp_path / 'model.npz'}"),
        f"--min_feature_similarity={(cosines[0] + cosines[1]) / 2}",
    )
    assert "1 pairs dropped" in done.stdout
    assert "between the sets: 1 pairs, 1 of 6 images" in done.stdout
    for folder in (tmp_path / "test").iterdir():
        folder.rename(folder.parent / ("1" if folder.name == "c" else "0"))
    done = programs.run(
        "dedup",
        *(tmp_path / "train", tmp_path / "test", "--noinside"),
        *(f"--output={tmp_path / 'out'}", f"--model={tmp_path / 'model.npz'}"),
    )
    # The head is zero: it always says the first class.
    assert "top-1 on all of TEST: 50.00 % of 6" in done.stdout
    assert "top-1 without duplicates: 50.00 % of 4" in done.stdout
    done = programs.run(
        *("dedup", tmp_path / "train", "--min_feature_similarity=0.5"),
        f"--output={tmp_path / 'out'}",
    )
    assert done.returncode == 1 and "give --model too" in done.stderr
    done = programs.run("dedup", f"--output={tmp_path / 'out'}")
    assert done.returncode == 1 and "name one or two folders" in done.stderr
