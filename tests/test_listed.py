"""Sets that a file lists or holds: CSV, JSONL, NumPy, Parquet, tar."""

import csv
import io
import json
import tarfile

import numpy as np
import pyarrow
import pytest
from PIL import Image
from pyarrow import parquet

from bit_tf import archives
from bit_tf import image_file
from bit_tf import sources
from bit_tf import tasks
from tests.conftest import save_image


def load(dataset, **kwargs):
    names = ("train_split", "eval_split", "target")
    task = {name: kwargs.pop(name) for name in names if name in kwargs}
    remarks = []
    train, evaluation = sources.load(
        tasks.parse(str(dataset), **task), log=remarks.append, **kwargs
    )
    return train, evaluation, remarks


def encoded(value, kind="PNG"):
    buffer = io.BytesIO()
    Image.new("RGB", (12, 8), (value, 0, 0)).save(buffer, format=kind)
    return buffer.getvalue()


@pytest.fixture
def images(tmp_path):
    """Twelve pictures in a folder beside what lists them."""
    for number in range(12):
        save_image(tmp_path / "pictures" / f"{number}.png", value=9 * number)
    return [f"pictures/{number}.png" for number in range(12)]


def write_csv(path, header, lines, **kwargs):
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, **kwargs)
        writer.writerows([header] * bool(header) + lines)
    return f"csv:{path}"


def classes(train, evaluation):
    return [
        [part.class_names[label] for label in part.labels]
        for part in (train, evaluation)
    ]


@pytest.mark.parametrize("header", [("path", "label", "split"), None])
@pytest.mark.parametrize("kwargs", [{}, {"delimiter": "\t"}])
def test_csv_with_and_without_a_first_line(tmp_path, images, header, kwargs):
    lines = [
        [
            image,
            "cat" if i % 3 else "dog, or 'wolf'",
            "test" if i > 8 else "train",
        ]
        for i, image in enumerate(images)
    ]
    train, evaluation, remarks = load(
        write_csv(tmp_path / "labels.csv", header, lines, **kwargs)
    )
    assert train.class_names == ("cat", "dog, or 'wolf'")
    assert train.names == images[:9] and evaluation.names == images[9:]
    assert train.labels.tolist() == [1, 0, 0] * 3
    assert train.typical_size() == (20, 24)
    assert not remarks


def test_columns_may_stand_in_any_order_and_there_may_be_more(tmp_path, images):
    lines = [["x", i % 2, image] for i, image in enumerate(images)]
    dataset = write_csv(
        tmp_path / "l.csv", ("\ufeffremark", "Class", "FILENAME"), lines
    )
    train, evaluation, remarks = load(dataset)
    assert len(train) + len(evaluation) == 12
    assert "2 of 12 images are held out" in remarks[0]


def test_several_labels_make_it_so_for_all(tmp_path, images):
    labels = ["sea;sky", "sky", "", "sea; sand ;sky"] * 3
    splits = ["train"] * 8 + ["val"] * 4
    lines = [list(line) for line in zip(images, labels, splits, strict=True)]
    header = ("path", "labels", "split")
    train, evaluation, _ = load(write_csv(tmp_path / "l.csv", header, lines))
    assert train.is_multi_label
    assert train.class_names == ("sand", "sea", "sky")
    assert train.labels[:4].tolist() == [
        [1, 2, -1],
        [2, -1, -1],
        [-1, -1, -1],
        [0, 1, 2],
    ]
    assert train.class_counts().tolist() == [2, 4, 6]
    assert len(evaluation) == 4


def test_jsonl_takes_lists_numbers_and_texts(tmp_path, images):
    lines = [
        {
            "image": image,
            "label": ["a", "b"] if i % 2 else "b",
            "split": "train",
        }
        for i, image in enumerate(images)
    ]
    lines[-1]["split"] = "test"
    path = tmp_path / "labels.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)) + "\n\n")
    train, evaluation, _ = load(f"jsonl:{path}")
    assert train.labels[:2].tolist() == [[1, -1], [0, 1]]
    assert len(evaluation) == 1


def test_numbers_and_bins(tmp_path, images):
    lines = [
        [image, i / 2, "test" if i % 2 else "train"]
        for i, image in enumerate(images)
    ]
    dataset = write_csv(tmp_path / "l.csv", ("path", "label", "split"), lines)
    train, evaluation, _ = load(dataset, target="number")
    assert train.is_number and train.class_names == ("label",)
    np.testing.assert_array_equal(train.labels, np.arange(6, dtype=np.float32))
    assert train.class_counts() is None
    # An edge belongs to what is above it.
    train, evaluation, _ = load(dataset, target="bins:1,2.5")
    assert train.class_names == ("below 1", "1 to 2.5", "2.5 and more")
    assert train.labels.tolist() == [0, 1, 1, 2, 2, 2]
    assert evaluation.labels.tolist() == [0, 1, 2, 2, 2, 2]


@pytest.mark.parametrize(
    "text",
    ["bins", "bins:", "bins:2,1", "bins:1,1", "bins:nan", "bins:inf", "x"],
)
def test_targets_that_mean_nothing(text):
    with pytest.raises(ValueError, match="allowed are class, number"):
        tasks.parse("csv:x", target=text)


def test_numbers_are_not_for_folders():
    with pytest.raises(ValueError, match="for sets that give numbers"):
        tasks.parse("folder:x", target="number")


def another_label(lines):
    lines.append([lines[0][0], "other"])


def another_spelling(lines):
    lines.append([f"./{lines[0][0]}", "other"])


def no_label(lines):
    lines[3][1] = " "


def no_path(lines):
    lines[3][0] = ""


def cells(lines):
    lines[3].append("too many")


def one_class(lines):
    for line in lines:
        line[1] = "same"


def no_such_file(lines):
    lines[3][0] = "nowhere.png"


def control(lines):
    lines[3][1] = "a\x07"


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (another_label, "line 13: pictures/0.png stands in l.csv, line 1 alre"),
        (another_spelling, "line 13: ./pictures/0.png stands in l.csv, li"),
        (no_label, "line 4: pictures/3.png has no label"),
        (no_path, "line 4 has no path"),
        (cells, "line 4: 3 cells where the first line has 2"),
        (one_class, "only class 'same'"),
        (no_such_file, "nowhere.png ([Errno 2] No such file"),
        (control, "line 4: label 'a\\\\x07' is empty or no plain text"),
    ],
)
def test_lines_that_cannot_be_used_are_named(tmp_path, images, spoil, said):
    lines = [[image, f"c{i % 2}"] for i, image in enumerate(images)]
    spoil(lines)
    with pytest.raises(ValueError) as error:
        load(write_csv(tmp_path / "l.csv", None, lines))
    assert said.replace("\\\\", "\\") in str(error.value)
    assert "\n" not in str(error.value)


def test_lists_that_are_none(tmp_path):
    with pytest.raises(ValueError, match="does not exist"):
        load(f"csv:{tmp_path / 'none.csv'}")
    path = tmp_path / "labels"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="not a CSV file in UTF-8"):
        load(f"csv:{path}")
    path.write_text("")
    with pytest.raises(ValueError, match="lists no images"):
        load(f"csv:{path}")
    path.write_text("path,other\na,b\n")
    with pytest.raises(ValueError, match="no column label: it has path, other"):
        load(f"csv:{path}")
    path.write_text('{"path": 1}\n')
    with pytest.raises(ValueError, match="no column label"):
        load(f"jsonl:{path}")
    path.write_text('{"path": "a", "label": "b"}\n[1]\n')
    with pytest.raises(ValueError, match="line 2 is not a JSON object"):
        load(f"jsonl:{path}")
    path.write_text('{"path": "a", "label": {"x": 1}}\n')
    with pytest.raises(ValueError, match="line 1: label"):
        load(f"jsonl:{path}")


def test_splits_of_lists(tmp_path, images):
    names = ("train", "dev", "extra")
    lines = [
        [image, f"c{i // 6}", names[i % 3]] for i, image in enumerate(images)
    ]
    dataset = write_csv(tmp_path / "l.csv", None, lines)
    train, evaluation, remarks = load(dataset)
    assert train.names == images[::3] and evaluation.names == images[1::3]
    assert remarks == ["not used: split extra"]
    train, evaluation, _ = load(
        dataset, train_split="extra", eval_split="train"
    )
    assert train.names == images[2::3] and evaluation.names == images[::3]
    with pytest.raises(ValueError, match="has no split 'x'"):
        load(dataset, train_split="x")
    lines[0][2] = ""
    with pytest.raises(ValueError, match="0.png has no split"):
        load(write_csv(tmp_path / "l.csv", None, lines))


def test_images_that_cannot_be_used_are_left_out(tmp_path, images):
    (tmp_path / images[4]).write_text("no image")
    lines = [[image, f"c{i % 2}"] for i, image in enumerate(images)]
    dataset = write_csv(tmp_path / "l.csv", None, lines)
    with pytest.raises(ValueError, match="1 of 12 files.*4.png"):
        load(dataset)
    train, evaluation, remarks = load(
        dataset, reading=image_file.Reading(on_bad="skip")
    )
    assert len(train) + len(evaluation) == 11
    assert "pictures/4.png" in remarks[0]


def test_keras_arrays(tmp_path):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (9, 6, 5, 3), np.uint8)
    path = tmp_path / "set.npz"
    np.savez(
        path,
        x_train=images[:6],
        y_train=np.arange(6)[:, None] % 3,
        x_test=images[6:],
        y_test=np.arange(3),
    )
    train, evaluation, _ = load(f"npz:{path}")
    assert train.class_names == ("0", "1", "2")
    assert train.labels.tolist() == [0, 1, 2] * 2
    assert len(evaluation) == 3 and train.typical_size() == (6, 5)
    with Image.open(io.BytesIO(train.contents[4])) as image:
        np.testing.assert_array_equal(np.asarray(image), images[4])


def test_arrays_of_several_labels_and_of_numbers(tmp_path):
    path = tmp_path / "set.npz"
    gray = np.zeros((10, 4, 4), np.uint8)
    several = np.eye(4, dtype=np.int64)[np.arange(10) % 3]
    np.savez(path, images=gray, labels=several)
    train, evaluation, _ = load(f"npz:{path}")
    assert train.is_multi_label and len(train.class_names) == 4
    assert (len(train), len(evaluation)) == (8, 2)
    np.savez(
        path,
        train_images=gray,
        train_labels=several.argmax(1),
        class_names=np.array(["a", "b", "c", "never"]),
    )
    train, _, _ = load(f"npz:{path}")
    assert train.class_names == ("a", "b", "c", "never")
    np.savez(path, x=gray, y=np.linspace(0, 1, 10))
    train, _, _ = load(f"npz:{path}", target="number")
    assert train.is_number


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"a": np.zeros(3)}, "it has a, and not x_train"),
        (
            {"x": np.zeros((4, 2, 2)), "y": np.zeros(4, int)},
            r"shape \(4, 2, 2\) and float64: allowed are",
        ),
        (
            {"x": np.zeros((4, 2, 2), np.uint8), "y": np.zeros(3, int)},
            "4 images and 3 labels",
        ),
        (
            {"x": np.zeros((4, 2, 2), np.uint8), "y": np.full((4, 2), 2)},
            "not 0 or 1",
        ),
        (
            {"x": np.zeros((4, 2, 2), np.uint8), "y": np.array([None] * 4)},
            "is not usable",
        ),
    ],
)
def test_arrays_that_cannot_be_used(tmp_path, arrays, said):
    path = tmp_path / "set.npz"
    np.savez(path, **arrays)
    with pytest.raises(ValueError, match=said):
        load(f"npz:{path}")


def write_parquet(path, labels, *, names=None, as_struct=True):
    images = [encoded(20 * i) for i in range(len(labels))]
    if as_struct:
        images = [{"bytes": image, "path": None} for image in images]
    table = pyarrow.table({"image": images, "label": labels})
    if names:
        about = {"info": {"features": {"label": {"names": names}}}}
        table = table.replace_schema_metadata(
            {"huggingface": json.dumps(about)}
        )
    parquet.write_table(table, path)


def test_parquet_as_hubs_write_it(tmp_path):
    names = ["zebra", "ant"]
    for split, count in (("train", 6), ("test", 4)):
        write_parquet(
            tmp_path / f"{split}-00000-of-00001.parquet",
            [i % 2 for i in range(count)],
            names=names,
        )
    train, evaluation, _ = load(f"parquet:{tmp_path}")
    assert train.class_names == ("zebra", "ant")
    assert train.labels.tolist() == [0, 1] * 3 and len(evaluation) == 4
    assert train.contents[3] == encoded(60)


def test_parquet_of_plain_columns(tmp_path):
    path = tmp_path / "all.parquet"
    write_parquet(path, [["a"], ["a", "b"]] * 5, as_struct=False)
    train, evaluation, _ = load(f"parquet:{path}")
    assert train.is_multi_label and len(train) + len(evaluation) == 10
    path.write_bytes(b"PAR1")
    with pytest.raises(ValueError, match="cannot be read as parquet"):
        load(f"parquet:{path}")
    parquet.write_table(pyarrow.table({"a": [1]}), path)
    with pytest.raises(ValueError, match="has columns a"):
        load(f"parquet:{path}")
    with pytest.raises(ValueError, match="there are no such files"):
        load(f"parquet:{tmp_path / 'none'}")


def write_tar(path, members):
    with tarfile.open(path, "w") as archive:
        for name, content in members:
            about = tarfile.TarInfo(name)
            about.size = len(content)
            archive.addfile(about, io.BytesIO(content))


def test_tar_shards(tmp_path):
    for shard in range(2):
        members = []
        for i in range(4):
            key = f"set/{shard}_{i}"
            members += [
                (f"{key}.WEBP", encoded(40 * i, "WEBP")),
                (f"{key}.cls", str(i % 2).encode()),
            ]
        write_tar(tmp_path / f"train-{shard:02d}.tar", members)
    write_tar(
        tmp_path / "val-00.tar",
        [
            ("0.jpg", encoded(1, "JPEG")),
            ("0.json", b'{"label": 1}'),
            ("1.jpg", encoded(2, "JPEG")),
            ("1.txt", b"0\n"),
        ],
    )
    train, evaluation, _ = load(f"tar:{tmp_path}")
    assert train.labels.tolist() == [0, 1] * 4
    assert evaluation.labels.tolist() == [1, 0]
    # Converted at once, or TensorFlow could not read them.
    with Image.open(io.BytesIO(train.contents[2])) as image:
        assert image.format == "BMP"
    train, _, _ = load(f"tar:{tmp_path}/train-{{00..01}}.tar")
    assert len(train) == 6


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ([("a.cls", b"1")], "s.tar, a has cls and no image"),
        ([("a.png", encoded(3))], "s.tar, a has no label"),
        ([("a.png", encoded(3)), ("a.json", b"{")], "has no label"),
        ([("a.png", b"x"), ("a.cls", b"1")], "a .not an image"),
    ],
)
def test_tars_that_cannot_be_used(tmp_path, members, said):
    write_tar(tmp_path / "s.tar", members)
    with pytest.raises(ValueError, match=said):
        load(f"tar:{tmp_path / 's.tar'}")


@pytest.mark.parametrize("kind", ["tar", "parquet"])
def test_files_of_equal_names_in_folders_of_splits(tmp_path, kind):
    for split, count in (("train", 4), ("test", 2)):
        (tmp_path / split).mkdir()
        if kind == "parquet":
            write_parquet(
                tmp_path / split / "0.parquet", ["a", "b"] * (count // 2)
            )
        else:
            members = [
                (f"{i}.{ending}", content)
                for i in range(count)
                for ending, content in (
                    ("png", encoded(20 * i)),
                    ("cls", b"ab"[i % 2 : i % 2 + 1]),
                )
            ]
            write_tar(tmp_path / split / "0.tar", members)
    train, evaluation, _ = load(f"{kind}:{tmp_path}")
    assert (len(train), len(evaluation)) == (4, 2)


def test_classes_of_one_name_are_refused(tmp_path):
    np.savez(
        tmp_path / "set.npz",
        x=np.zeros((6, 4, 4), np.uint8),
        y=np.arange(6) % 3,
        class_names=np.array(["tench", "crane", "crane"]),
    )
    with pytest.raises(ValueError, match="two classes called 'crane'"):
        load(f"npz:{tmp_path / 'set.npz'}")
    np.save(tmp_path / "one.npy", np.zeros(3))
    with pytest.raises(ValueError, match="holds one array"):
        load(f"npz:{tmp_path / 'one.npy'}")


def test_a_damaged_tar_is_one_line(tmp_path):
    (tmp_path / "s.tar").write_bytes(b"no tar at all")
    with pytest.raises(ValueError, match="cannot be read as tar"):
        load(f"tar:{tmp_path / 's.tar'}")


def test_columns_of_any_json_line_count(tmp_path, images):
    lines = [
        {"path": image, "label": f"c{i % 2}", "split": "train"}
        for i, image in enumerate(images)
    ]
    del lines[0]["split"]
    path = tmp_path / "labels.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    with pytest.raises(ValueError, match="0.png has no split"):
        load(f"jsonl:{path}")


def test_what_does_not_fit_into_memory_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "MAX_BYTES_IN_MEMORY", 9)
    write_tar(tmp_path / "s.tar", [("a.png", encoded(3)), ("a.cls", b"1")])
    with pytest.raises(ValueError, match="held in memory"):
        load(f"tar:{tmp_path / 's.tar'}")
