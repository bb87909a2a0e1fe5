"""Published weights: fetched from a mirror, kept, verified, used by name."""

import json
import pathlib

import numpy as np
import pytest

from bit_tf import classifier
from bit_tf import exportable
from bit_tf import pretrained
from bit_tf import weights_file
from bit_tf import workdir as workdir_lib
from bit_tf import zoo
from tests import programs
from tests import published
from tests.server import Server

# The smallest of the published files: two classes.
NAME = "vtab/BiT-M-R50x1-run0-patch_camelyon"
ENTRY = zoo.find(NAME)


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory):
    """Random weights in the layout of a published file, and its bytes."""
    arrays = published.arrays(ENTRY.architecture, ENTRY.num_classes)
    path = tmp_path_factory.mktemp("stand_in") / "weights.npz"
    np.savez(path, **arrays)
    return arrays, path.read_bytes()


@pytest.fixture(scope="module")
def mirrored(stand_in, tmp_path_factory):
    """What programs need to find the stand-in: a mirror and an empty cache."""
    home = tmp_path_factory.mktemp("home")
    server = Server(stand_in[1])
    with server.running() as url:
        yield {"BIT_TF_MIRROR": url, "KERAS_HOME": str(home)}, server


def test_the_cache_is_where_keras_keeps_weights():
    directory = pretrained.cache_directory
    assert directory({"KERAS_HOME": "/k"}) == pathlib.Path("/k/models/bit_tf")
    home = pathlib.Path("~/.keras/models/bit_tf").expanduser()
    assert directory({}) == home


def test_what_a_mirror_has_is_fetched_once(stand_in, tmp_path):
    told = []
    server = Server(stand_in[1], ["drop"])
    with server.running() as url:
        for _ in range(2):
            path = pretrained.resolve(
                NAME, cache=tmp_path, mirror=url, log=told.append
            )
    assert path == tmp_path / f"{NAME}.npz"
    assert path.read_bytes() == stand_in[1]
    assert len(server.requests) == 2
    assert f"{url}/{NAME}.npz, about 94 MB, to {path}" in told[0]


def test_a_path_is_taken_as_it_is(tmp_path):
    (tmp_path / "own.npz").write_bytes(b"anything")
    found = pretrained.resolve(str(tmp_path / "own.npz"), cache=tmp_path)
    assert found == tmp_path / "own.npz"
    with pytest.raises(ValueError, match="do not exist"):
        pretrained.resolve(str(tmp_path / "none.npz"), cache=tmp_path)


@pytest.mark.parametrize(
    ("arrays", "wanted"),
    [
        (lambda: published.arrays("R26x0.5", 2), "it is of R26x0.5"),
        (lambda: published.arrays("R50x1", 3), "has 3 classes"),
    ],
)
def test_another_network_under_the_name_is_refused(arrays, wanted, tmp_path):
    np.savez(tmp_path / "other.npz", **arrays())
    content = (tmp_path / "other.npz").read_bytes()
    with (
        Server(content).running() as url,
        pytest.raises(ValueError, match=wanted) as caught,
    ):
        pretrained.fetch(ENTRY, cache=tmp_path, mirror=url, log=lambda t: None)
    assert "refused and was deleted" in str(caught.value)
    assert not (tmp_path / f"{NAME}.npz").exists()


def test_offline_says_where_to_put_which_file(tmp_path):
    done = programs.run(
        "convert",
        "BiT-M-R50x1",
        tmp_path / "x.npz",
        environment={"KERAS_HOME": str(tmp_path)},
    )
    assert done.returncode == 1
    (line,) = done.stderr.strip().splitlines()
    assert "no way to http://127.0.0.1:9/BiT-M-R50x1.npz" in line
    assert f"put it at {tmp_path}/models/bit_tf/BiT-M-R50x1.npz" in line
    assert "--mirror or $BIT_TF_MIRROR" in line


def test_a_mirror_can_be_a_flag(mirrored, tmp_path):
    environment, _ = mirrored
    done = programs.run(
        "convert",
        NAME,
        tmp_path / "x.safetensors",
        f"--mirror={environment['BIT_TF_MIRROR']}",
        environment={"KERAS_HOME": environment["KERAS_HOME"]},
    )
    assert done.returncode == 0, done.stderr
    assert "R50x1, 2 classes, 23,504,450 parameters" in done.stdout
    assert "logits and features of 2 images differ by 0e+00" in done.stdout


@pytest.mark.slow
def test_a_published_name_is_fine_tuned(mirrored, image_folder, tmp_path):
    environment, _ = mirrored
    flags = (
        f"--model={NAME}",
        f"--dataset=folder:{image_folder}",
        f"--workdir={tmp_path / 'run'}",
        "--crop=32",
        "--batch_size=2",
        "--total_steps=1",
        "--base_lr=1e-30",
        "--noexport",
    )
    done = programs.run("train", *flags, environment=environment)
    assert done.returncode == 0, done.stderr
    assert f"weights from {environment['KERAS_HOME']}" in done.stdout
    recipe = json.loads((tmp_path / "run" / "recipe.json").read_text())
    assert (recipe["model"], recipe["init_from"]) == ("R50x1", NAME)
    # At a rate of nothing what comes out is what was published.
    published_file = pathlib.Path(
        environment["KERAS_HOME"], "models", "bit_tf", f"{NAME}.npz"
    )
    with (
        np.load(published_file) as wanted,
        np.load(tmp_path / "run" / "weights.npz") as found,
    ):
        for key in wanted.files:
            np.testing.assert_array_equal(found[key], wanted[key])
    again = programs.run("train", *flags, environment=environment)
    assert "continuing at step 1 of 1" in again.stdout


@pytest.mark.slow
def test_the_default_is_small_where_nothing_can_be_fetched(
    image_folder, tmp_path
):
    flags = (
        f"--dataset=folder:{image_folder}",
        f"--workdir={tmp_path / 'run'}",
        "--crop=32",
        "--batch_size=4",
        "--total_steps=1",
        "--noexport",
    )
    environment = {"KERAS_HOME": str(tmp_path / "keras")}
    done = programs.run("train", *flags, environment=environment)
    assert done.returncode == 0, done.stderr
    assert "no way to http://127.0.0.1:9/BiT-M-R50x1.npz" in done.stdout
    assert "the small BiT-XS-R26x0.5 is trained instead" in done.stdout
    recipe = json.loads((tmp_path / "run" / "recipe.json").read_text())
    wanted = ("R26x0.5", "BiT-XS-R26x0.5")
    assert (recipe["model"], recipe["init_from"]) == wanted
    # What repeats the run does not depend on the network.
    repeated = (tmp_path / "run" / "run.flags").read_text().splitlines()
    assert {"--model=R26x0.5", "--init_from=BiT-XS-R26x0.5"} <= set(repeated)
    again = programs.run("train", *flags, environment=environment)
    assert again.returncode == 0, again.stderr
    assert "warning" not in again.stdout


def test_the_shipped_weights_are_fetched_from_nowhere(tmp_path):
    path = pretrained.resolve(
        zoo.SHIPPED, cache=tmp_path, mirror="http://127.0.0.1:9"
    )
    assert not any(tmp_path.iterdir())
    with weights_file.opened(path, expected="R26x0.5") as stored:
        assert stored.num_classes == 200
    found = classifier.load(path)
    assert found.class_names[0] == "goldfish, Carassius auratus"
    assert found.crop == 48
    # ImageNet's terms, and not the authors' licence.
    assert exportable.of_weights(path).license == exportable.OTHER_LICENSE


@pytest.mark.slow
def test_the_shipped_weights_are_as_good_as_their_card_says(
    shared_data, tmp_path
):
    done = programs.run(
        "evaluate",
        f"--model={zoo.SHIPPED}",
        f"--dataset=folder:{shared_data / 'tiny_imagenet'}",
        "--match_classes=order",
        f"--output={tmp_path}",
    )
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "evaluation.json").read_text())
    assert found["top1"] == pytest.approx(0.225, abs=0.005)


def test_any_npz_is_exported_without_saying_what_it_is(tmp_path):
    np.savez(tmp_path / "mine.npz", **published.arrays("R26x0.5", 7))
    facts = exportable.of_weights(tmp_path / "mine.npz").facts()
    assert facts["architecture"] == "R26x0.5"
    assert facts["class_names"] == list("0123456")
    assert facts["image_size"] == 224
    assert facts["license"] == "other"
    assert facts["weights"]["sha256"] == workdir_lib.sha256(
        tmp_path / "mine.npz"
    )


def test_an_initializer_is_for_fresh_weights(tmp_path):
    np.savez(tmp_path / "mine.npz", **published.arrays("R26x0.5", 7))
    done = programs.run(
        "train",
        *("--dataset=builtin:patches", f"--workdir={tmp_path / 'run'}"),
        f"--init_from={tmp_path / 'mine.npz'}",
        "--initializer=he_normal",
    )
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert "--initializer=he_normal is for fresh weights" in done.stderr


@pytest.mark.slow
def test_labels_and_size_can_be_said(tmp_path):
    np.savez(tmp_path / "mine.npz", **published.arrays("R26x0.5", 3))
    (tmp_path / "names.txt").write_text("ä\nb b\nc\n", encoding="utf-8")
    flags = (
        f"--init_from={tmp_path / 'mine.npz'}",
        f"--output={tmp_path / 'model'}",
        "--image_size=96",
    )
    done = programs.run("export", *flags, f"--labels={tmp_path / 'names.txt'}")
    assert done.returncode == 0, done.stderr
    facts = json.loads(
        (tmp_path / "model" / "assets" / "bit_tf.json").read_text()
    )
    assert facts["class_names"] == ["ä", "b b", "c"]
    assert facts["image_size"] == 96
    done = programs.run("export", *flags, "--labels=ilsvrc2012")
    assert done.returncode == 1
    assert "1000 class names for 3 outputs" in done.stderr


@pytest.mark.parametrize(
    ("flags", "wanted"),
    [
        ([], "--workdir, of a run, or --init_from"),
        (["--workdir=x", "--init_from=y"], "--workdir, of a run, or"),
        (["--init_from=y"], "--init_from needs --output"),
        (["--init_from=y.npz", "--output=o"], "y.npz do not exist"),
        (["--workdir=x", "--labels=y"], "--labels is for --init_from"),
        (["--init_from=BiT-M-R50x9", "--output=o"], "'BiT-M-R50x9'"),
    ],
)
def test_exports_wrong_flags_are_one_line(flags, wanted, tmp_path):
    done = programs.run("export", *flags, cwd=tmp_path)
    assert done.returncode == 1
    (line,) = done.stderr.strip().splitlines()
    assert wanted in line


def test_a_published_file_is_exported_with_what_is_known_of_it(tmp_path):
    # By its name and shapes; the labels of 1,000 classes.
    path = tmp_path / "R50x1_160.npz"
    np.savez(path, **published.arrays("R50x1", 1000))
    done = programs.run(
        "export", f"--init_from={path}", f"--output={tmp_path}/m"
    )
    assert done.returncode == 0, done.stderr
    facts = json.loads((tmp_path / "m" / "assets" / "bit_tf.json").read_text())
    assert facts["image_size"] == 160
    assert facts["class_names"][0] == "tench, Tinca tinca"
    assert facts["training"]["weights"] == "distill/R50x1_160"
