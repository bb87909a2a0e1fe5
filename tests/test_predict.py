"""Models from outside: what is predicted, and how it is judged."""

import csv
import dataclasses
import io
import json
import os
import shutil

import numpy as np
import pytest
from PIL import Image

from bit_tf import cells
from bit_tf import classifier as classifier_lib
from bit_tf import examples
from bit_tf import image_file
from bit_tf import judging
from bit_tf import listed_files
from bit_tf import prediction
from bit_tf import resnet_v2
from bit_tf import weights
from tests import programs
from tests import steps
from tests.conftest import save_image

TINY = (
    "--model=R26x0.5",
    "--crop=32",
    "--batch_size=4",
    "--total_steps=8",
    "--base_lr=0.02",
)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """A folder of dark and light pictures, some kinds of which are odd."""
    root = tmp_path_factory.mktemp("images")
    for split, count in (("train", 6), ("test", 5)):
        for name, value in (("dark", 60), ("light", 190)):
            for number in range(count):
                ending = ("png", "webp", "bmp")[number % 3]
                file = root / split / name / f"{number} x.{ending}"
                save_image(file, value=value)
    return root


@pytest.fixture(scope="module")
def run(images, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("run") / "run"
    done = programs.run(
        "train", f"--dataset=folder:{images}", f"--workdir={workdir}", *TINY
    )
    assert done.returncode == 0, done.stderr
    return workdir


def predict(*arguments, **kwargs):
    done = programs.run("predict", *arguments, **kwargs)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return done


def table(text):
    return list(csv.DictReader(io.StringIO(text)))


def test_predictions_are_those_that_the_run_was_judged_by(run, images):
    done = predict(f"--model={run}", images / "test", "--top_k=9")
    rows = table(done.stdout)
    assert [row["file"] for row in rows] == [
        str(file)
        for name in ("dark", "light")
        for file in sorted((images / "test" / name).iterdir())
    ]
    right = sum(f"/{row['class_1']}/" in row["file"] for row in rows)
    kept = json.loads((run / "evaluation.json").read_text())
    assert right == kept["correct"] and kept["examples"] == len(rows)
    for row in rows:
        first, second = (float(row[f"probability_{i}"]) for i in (1, 2))
        assert first >= second and first + second == pytest.approx(1, abs=1e-5)
    assert "10 images in" in done.stderr and "images/s" in done.stderr


def test_the_saved_model_says_the_same(run, images):
    of_run, of_saved_model = (
        table(predict(*model, images / "test").stdout)
        for model in (
            (f"--model={run}",),
            (f"--model={run / 'saved_model'}", "--trust_saved_model"),
        )
    )
    for a, b in zip(of_run, of_saved_model, strict=True):
        assert (a["file"], a["class_1"]) == (b["file"], b["class_1"])
        assert float(a["probability_1"]) == pytest.approx(
            float(b["probability_1"]), abs=1e-4
        )


def test_no_cell_is_a_formula(run, images, tmp_path):
    for name in ("=1+1.png", "-x.png", "@a.png", "plain.png"):
        shutil.copy(images / "test" / "dark" / "0 x.png", tmp_path / name)
    (tmp_path / "+broken.png").write_bytes(b"nothing")
    done = predict(
        *(f"--model={run}", "-"),
        cwd=tmp_path,
        environment={"PYTHONPATH": str(programs.ROOT)},
        input="=1+1.png\n-x.png\n@a.png\nplain.png\n+broken.png\n",
    )
    names = [row["file"] for row in table(done.stdout)]
    assert names == [
        *("./=1+1.png", "./-x.png", "./@a.png", "plain.png", "./+broken.png")
    ]
    # They are the same files.
    assert all((tmp_path / name).is_file() for name in names)


@pytest.mark.parametrize("text", ["=a", "+a", "-a", "@a", "\ta", "\ra"])
def test_what_looks_like_a_formula_is_text(text):
    assert cells.of_text(text) == "'" + text
    assert cells.of_file(text) == "./" + text
    assert cells.of_text("a=b") == cells.of_file("a=b") == "a=b"


def test_odd_files_lists_and_features(run, images, tmp_path):
    shutil.copy(images / "test" / "dark" / "0 x.png", tmp_path / "a,\"b'.png")
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff nothing")
    names = ["a,\"b'.png", "missing*.png", "broken.jpg"]
    done = predict(
        f"--model={run}",
        *("-", "--format=jsonl", "--features", "--top_k=1"),
        cwd=tmp_path,
        environment={"PYTHONPATH": str(programs.ROOT)},
        input="\n".join(names) + "\n",
    )
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["file"] for row in rows] == names
    assert len(rows[0]["features"]) == 1024 and len(rows[0]["classes"]) == 1
    assert "No such file" in rows[1]["error"]
    assert rows[2]["error"] and "classes" not in rows[2]
    assert "2 could not be used" in done.stderr
    done = predict(f"--model={run}", tmp_path, "--features", "--top_k=1")
    first, second = table(done.stdout)
    assert first["file"].endswith("a,\"b'.png") and first["feature_1023"]
    assert second["feature_1023"] == ""
    assert second["error"] and not second["class_1"]
    done = programs.run(
        "predict", f"--model={run}", tmp_path, "--on_bad_image=fail"
    )
    assert done.returncode == 1
    assert "broken.jpg cannot be used" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--model={run}",), "no images: name files"),
        (("--model={run}", "{empty}"), "no images in"),
        (("--model=nowhere", "x.png"), "nowhere"),
        (("x.png",), "--model"),
        (
            ("--model={run}/saved_model", "{run}/x.png"),
            "is a program, which may read and write files",
        ),
    ],
)
def test_what_cannot_be_predicted_is_one_line(run, tmp_path, arguments, said):
    done = programs.run(
        "predict", *(a.format(run=run, empty=tmp_path) for a in arguments)
    )
    assert done.returncode == 1
    assert said in done.stderr and done.stderr.count("\n") == 1


def test_an_evaluation_is_that_of_the_run(run, images, tmp_path):
    done = programs.run(
        "evaluate",
        f"--model={run}",
        f"--dataset=folder:{images}",
        f"--output={tmp_path}",
    )
    assert done.returncode == 0, done.stderr
    kept = json.loads((run / "evaluation.json").read_text())
    found = json.loads((tmp_path / "evaluation.json").read_text())
    for key in ("top1", "correct", "examples", "per_class", "confused"):
        assert found[key] == kept[key]
    assert found["loss"] == pytest.approx(kept["loss"], rel=1e-5)
    assert found["calibration"]["ece"] == pytest.approx(
        kept["calibration"]["ece"], abs=1e-5
    )
    page = (tmp_path / "report.html").read_text()
    assert "bit_tf.evaluate" in page and "How far to trust" in page
    by_weights = classifier_lib.load(run / "weights.npz")
    assert tuple(by_weights.class_names) == ("dark", "light")
    # Of the SavedModel, on all there is.
    done = programs.run(
        "evaluate",
        f"--model={run / 'saved_model'}",
        f"--dataset=folder:{images}",
        *("--part=all", "--batch_size=5", "--trust_saved_model"),
    )
    assert "of 22 images right" in done.stdout


@pytest.mark.slow
def test_a_run_is_evaluated_on_what_it_held_out(images, tmp_path):
    dataset = f"--dataset=folder:{images / 'train'}"
    workdir = tmp_path / "run"
    done = programs.run(
        "train",
        *(dataset, f"--workdir={workdir}", "--split_seed=3", "--noexport"),
        *TINY,
    )
    assert done.returncode == 0, done.stderr
    done = programs.run("evaluate", f"--model={workdir}", dataset)
    assert done.returncode == 0, done.stderr
    assert "--split_seed=3" in done.stdout and "note:" not in done.stdout
    done = programs.run(
        "evaluate", f"--model={workdir}", dataset, "--split_seed=0"
    )
    assert "note: these are not the images that the run" in done.stdout


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A model of three classes, of a size that is traced in little time."""
    path = tmp_path_factory.mktemp("small") / "some.npz"
    with steps.there_is_r14():
        model = resnet_v2.build("R14x0.5", 3, seed=0)
        head = model.get_layer("head").conv.kernel
        head.assign(np.random.default_rng(0).normal(size=head.shape))
        weights.save(path, model)
        return classifier_lib.load(path, image_size=32)


def test_classes_are_matched_by_name_or_order(small, images):
    model = dataclasses.replace(small, class_names=("light", "none", "dark"))
    files = sorted(str(f) for f in (images / "test").rglob("*x.png"))
    two = examples.Examples(
        names=files,
        contents=files,
        labels=np.array(["/light/" in f for f in files], np.int32),
        sizes=np.full((len(files), 2), 20),
        class_names=("dark", "light"),
    )
    matched = judging.matched(two, model)
    assert matched.class_names == ("light", "none", "dark")
    assert matched.labels.tolist() == [2 - 2 * v for v in two.labels]
    final = judging.judge(model, matched, batch_size=4)
    # The model said of each file what it says when asked to predict.
    said = list(prediction.predict(model, files, top_k=1, batch_size=4))
    assert [final.class_names[i] for i in final.predicted] == [
        p.classes[0] for p in said
    ]
    with pytest.raises(ValueError, match="needs as many"):
        judging.matched(two, model, by_name=False)
    other = dataclasses.replace(model, class_names=("a", "b"))
    with pytest.raises(ValueError, match="'dark' of the set is not one"):
        judging.matched(two, other)
    assert judging.matched(two, other, by_name=False).class_names == ("a", "b")
    number = dataclasses.replace(model, head="squared")
    with pytest.raises(ValueError, match="the model gives numbers"):
        judging.matched(two, number)


def test_of_several_labels_one_answer_may_be_any(small, images):
    files = sorted(map(str, (images / "test").rglob("*x.*")))
    model = dataclasses.replace(small, class_names=("a", "b", "c"))
    said = [
        model.class_names.index(p.classes[0])
        for p in prediction.predict(model, files, top_k=1, batch_size=4)
    ]
    labels = np.full((len(files), 2), -1, np.int32)
    for index, answer in enumerate(said):
        if index % 3 == 0:
            labels[index] = sorted({answer, (answer + 1) % 3})
        elif index % 3 == 1:
            labels[index, 0] = (answer + 1) % 3
    several = examples.Examples(
        names=files,
        contents=files,
        labels=labels,
        sizes=np.full((len(files), 2), 20),
        class_names=model.class_names,
        converted=np.array([not f.endswith("png") for f in files]),
    )
    matched = judging.matched(several, model)
    # Those without a label have no right answer.
    assert len(matched) == (labels >= 0).any(axis=1).sum() < len(files)
    final = judging.judge(model, matched, batch_size=4)
    assert final.hits.sum() == (np.arange(len(files)) % 3 == 0).sum()
    assert "map" not in final.summary()


def test_classes_may_stand_for_several_of_the_model(small, images, tmp_path):
    files = sorted(map(str, (images / "test").rglob("*x.png")))
    model = dataclasses.replace(small, class_names=("a", "b", "c"))
    two = examples.Examples(
        names=files,
        contents=files,
        labels=np.array(["/light/" in f for f in files], np.int32),
        sizes=np.full((len(files), 2), 20),
        class_names=("dark", "light"),
    )
    path = tmp_path / "map.json"
    path.write_text('{"light": "a; b", "other": ["c"]}')
    found = judging.read_class_map(path)
    mapped = judging.mapped(two, model, found)
    assert mapped.labels.tolist() == [[0, 1]] * int(two.labels.sum())
    everything = judging.mapped(two, model, {"light": ("a", "b", "c")})
    final = judging.judge(model, everything, batch_size=4)
    assert final.summary()["top1"] == 1
    with pytest.raises(ValueError, match="stands for 'x', which is not"):
        judging.mapped(two, model, {"light": ("x",)})
    with pytest.raises(ValueError, match="none of the set's classes"):
        judging.mapped(two, model, {"other": ("a",)})
    for text in ("[1]", "{", '{"a": 1}'):
        path.write_text(text)
        with pytest.raises(ValueError, match="cannot be read"):
            judging.read_class_map(path)


def test_preprocessing_can_be_another(small, images):
    text = "decode|resize_small(40)|central_crop(24)"
    other = classifier_lib.with_preprocessing(small, text)
    assert other.crop == 24
    assert other.preprocess_text == f"{text}|value_range(-1,1)"
    file = images / "test" / "dark" / "0 x.png"
    found = other.read(str(file), image_file.Reading())
    assert found.shape == (24, 24, 3) and float(found[0, 0, 0]) < 0
    with pytest.raises(ValueError, match="end it with"):
        classifier_lib.with_preprocessing(small, "decode")


def test_photos_are_turned_whatever_the_model_was_trained_with(small, tmp_path):
    path = tmp_path / "turned.jpg"
    pixels = np.zeros((40, 40, 3), np.uint8)
    pixels[:20] = 255
    exif = Image.Exif()
    exif[0x0112] = 3
    Image.fromarray(pixels).save(path, exif=exif)
    stored = dataclasses.replace(
        small, preprocess_text="decode(0)|resize(32)|value_range(-1,1)"
    )
    for apply_exif, top in ((True, -1), (False, 1)):
        for model in (small, stored):
            model = classifier_lib.with_exif(model, apply_exif=apply_exif)
            image = model.read(
                str(path), image_file.Reading(apply_exif=apply_exif)
            )
            assert float(image[3, 3, 0]) == pytest.approx(top, abs=0.1)


def test_classes_that_do_not_occur_are_no_answers(small, images):
    files = sorted(map(str, (images / "test").rglob("*x.png")))
    model = dataclasses.replace(small, class_names=("a", "b", "c"))
    for label in range(3):
        one = examples.Examples(
            names=files,
            contents=files,
            labels=np.full(len(files), label, np.int32),
            sizes=np.full((len(files), 2), 20),
            class_names=model.class_names,
        )
        final = judging.judge(model, one, batch_size=4, only_present=True)
        assert final.summary()["top1"] == 1
        np.testing.assert_allclose(final.label_probability, 1)
        json.dumps(final.details())


def test_messy_files_are_predicted_or_refused(shared_data, small):
    names = list(listed_files.expand([str(shared_data / "messy")]))
    found = {p.name: p for p in prediction.predict(small, names)}
    with image_file.many():
        for name in names:
            info = image_file.inspect(name)
            assert bool(found[name].error) == isinstance(info, str), name
    assert not any(os.path.basename(n).startswith(".") for n in names)


@pytest.fixture(scope="module")
def lists(tmp_path_factory):
    """Pictures of several labels and of a number: how light they are."""
    root = tmp_path_factory.mktemp("lists")
    rng = np.random.default_rng(0)
    for name, label in (
        ("several", lambda v: "light;any" if v > 127 else "any"),
        ("number", lambda v: 1000 + v),
    ):
        lines = ["path,label,split"]
        for i, value in enumerate(rng.integers(30, 220, 24)):
            save_image(root / f"{i}.png", value=int(value))
            split = "test" if i % 3 == 0 else "train"
            lines.append(f"{i}.png,{label(value)},{split}")
        (root / f"{name}.csv").write_text("\n".join(lines))
    return root


@pytest.mark.slow
def test_several_labels_from_training_to_prediction(lists, tmp_path):
    dataset = f"--dataset=csv:{lists / 'several.csv'}"
    done = programs.run(
        "train",
        dataset,
        f"--workdir={tmp_path / 'run'}",
        *(*TINY, "--class_weights=balanced", "--freeze=root_block,block1"),
        *("--dropout=0.1", "--label_smoothing=0.1", "--noexport"),
    )
    assert done.returncode == 0, done.stderr
    assert "several labels per image" in done.stdout
    assert "Mean average precision" in done.stdout
    kept = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    assert 0 < kept["map"] <= 1 and kept["examples"] == 8
    done = programs.run("evaluate", f"--model={tmp_path / 'run'}", dataset)
    found = json.loads(
        (tmp_path / "run" / "evaluation" / "evaluation.json").read_text()
    )
    assert found["map"] == pytest.approx(kept["map"])
    rows = table(predict(f"--model={tmp_path / 'run'}", lists / "0.png").stdout)
    total = sum(float(rows[0][f"probability_{i}"]) for i in (1, 2))
    assert total != pytest.approx(1, abs=1e-3)


@pytest.mark.slow
def test_numbers_from_training_to_prediction(lists, tmp_path):
    dataset = f"--dataset=csv:{lists / 'number.csv'}"
    done = programs.run(
        "train",
        *(dataset, "--target=number", f"--workdir={tmp_path / 'run'}"),
        *(*TINY, "--eval_every=4", "--total_steps=30"),
    )
    assert done.returncode == 0, done.stderr
    assert "Off by" in done.stdout and "mean absolute error" in done.stdout
    kept = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    # Light and dark are told apart, in the labels' own unit.
    assert kept["r2"] > 0 and kept["mae"] < 60
    for model in (tmp_path / "run", tmp_path / "run" / "saved_model"):
        done = predict(
            f"--model={model}", lists / "0.png", "--trust_saved_model"
        )
        (row,) = table(done.stdout)
        assert 900 < float(row["label"]) < 1400 and not row["error"]
    done = programs.run(
        "evaluate", f"--model={tmp_path / 'run'}", dataset, "--target=number"
    )
    found = json.loads(
        (tmp_path / "run" / "evaluation" / "evaluation.json").read_text()
    )
    assert found["mae"] == pytest.approx(kept["mae"], rel=1e-3)
    done = programs.run("evaluate", f"--model={tmp_path / 'run'}", dataset)
    assert done.returncode == 1 and "gives numbers" in done.stderr
