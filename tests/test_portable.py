"""TFLite, ONNX and Keras files: the same network, or nothing is written."""

import dataclasses
import json
import zipfile

import keras
import numpy as np
import onnxruntime
import pytest
import tensorflow as tf

from bit_tf import exportable as exportable_lib
from bit_tf import portable
from bit_tf import resnet_v2
from bit_tf import workdir as workdir_lib
from tests import agreement
from tests import programs

NAMES = ("ant", "bée", "cat & dog")
CROP = 32


@pytest.fixture(scope="module")
def exportable():
    model = resnet_v2.build("R26x0.5", 3, seed=3)
    head = model.get_layer("head").conv.kernel
    head.assign(np.random.default_rng(0).normal(size=head.shape) * 0.1)
    return exportable_lib.Exportable(model=model, class_names=NAMES, crop=CROP)


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(1)
    coarse = rng.uniform(size=(12, 5, 5, 3))
    resized = tf.image.resize(coarse, (CROP, CROP), "bicubic").numpy()
    return np.clip(resized, 0, 1).astype(np.float32)


@pytest.fixture(scope="module")
def wanted(exportable, images):
    return exportable.model(images * 2 - 1).numpy()


@pytest.mark.parametrize(
    ("quantize", "share"),
    [
        ("none", 1.0),
        pytest.param("float16", 0.52, marks=pytest.mark.slow),
        pytest.param("dynamic", 0.32, marks=pytest.mark.slow),
        ("int8", 0.32),
    ],
)
def test_tflite(exportable, images, wanted, quantize, share, tmp_path):
    path = tmp_path / "m.tflite"
    told = portable.write_tflite(path, exportable, images, quantize=quantize)
    runner = tf.lite.Interpreter(str(path)).get_signature_runner()
    found = [runner(images=image[None]) for image in images]
    logits = np.concatenate([one["logits"] for one in found])
    largest = np.abs(logits - wanted).max() / np.abs(wanted).max()
    assert told.largest == pytest.approx(
        largest, rel=1e-3, abs=agreement.ROUNDING
    )
    assert told.images == len(images)
    limit = {
        "none": agreement.ROUNDING,
        "float16": 5e-3,
        "dynamic": 0.15,
        "int8": 0.4,
    }
    assert largest < limit[quantize]
    probabilities = np.concatenate([one["probabilities"] for one in found])
    np.testing.assert_allclose(probabilities, tf.nn.softmax(logits), atol=1e-3)
    raw = 4 * exportable.model.count_params()
    assert 0.2 * raw < path.stat().st_size < share * raw + 100_000
    with zipfile.ZipFile(path) as archive:
        labels = archive.read("labels.txt").decode()
        facts = json.loads(archive.read("bit_tf.json"))
    assert labels.splitlines() == list(NAMES)
    assert facts["image_size"] == CROP


@pytest.mark.slow
def test_onnx(exportable, images, wanted, tmp_path):
    told = portable.write_onnx(tmp_path / "m.onnx", exportable, images)
    assert told.largest < agreement.ROUNDING and told.agreement == 1
    session = onnxruntime.InferenceSession(
        tmp_path / "m.onnx", providers=["CPUExecutionProvider"]
    )
    # Any number and size.
    logits, probabilities = session.run(
        ["logits", "probabilities"], {"images": images}
    )
    assert agreement.relative_error(logits, wanted) < agreement.ROUNDING
    np.testing.assert_allclose(probabilities, tf.nn.softmax(logits), atol=1e-5)
    (odd,) = session.run(["logits"], {"images": images[:2, :30, :27]})
    expected = exportable.model(images[:2, :30, :27] * 2 - 1).numpy()
    assert agreement.relative_error(odd, expected) < agreement.ROUNDING
    metadata = session.get_modelmeta().custom_metadata_map
    assert json.loads(metadata["class_names"]) == list(NAMES)


@pytest.mark.slow
def test_keras(exportable, images, wanted, tmp_path):
    told = portable.write_keras(tmp_path / "m.keras", exportable, images)
    assert told.largest < agreement.ROUNDING
    loaded = keras.models.load_model(tmp_path / "m.keras")
    logits = loaded(images * 2 - 1).numpy()
    assert agreement.relative_error(logits, wanted) < agreement.ROUNDING


@pytest.mark.slow
def test_features_and_numbers_have_their_names(exportable, images, tmp_path):
    for subject, name, shape in (
        (exportable_lib.without_head(exportable), "features", (1, 1024)),
        (
            dataclasses.replace(exportable, head="squared"),
            "numbers",
            (1, 3),
        ),
    ):
        path = tmp_path / f"{name}.tflite"
        told = portable.write_tflite(path, subject, images[:2])
        assert told.agreement is None
        runner = tf.lite.Interpreter(str(path)).get_signature_runner()
        found = runner(images=images[:1])
        assert {k: v.shape for k, v in found.items()} == {name: shape}


def test_what_differs_is_not_written(exportable, images, tmp_path, monkeypatch):
    monkeypatch.setitem(portable.TOLERANCES, "float16", 1e-7)
    path = tmp_path / "m.tflite"
    path.write_bytes(b"older")
    with pytest.raises(RuntimeError, match="nothing is written"):
        portable.write_tflite(path, exportable, images, quantize="float16")
    assert path.read_bytes() == b"older"
    assert [file.name for file in tmp_path.iterdir()] == ["m.tflite"]


@pytest.mark.slow
def test_the_program_writes_and_compares(exportable, tmp_path):
    from bit_tf import weights

    weights.save(tmp_path / "w.npz", exportable.model)
    source = f"--init_from={tmp_path / 'w.npz'}"
    output = f"--output={tmp_path / 'm.tflite'}"
    done = programs.run(
        *("export", source, output, "--format=tflite", "--image_size=32")
    )
    assert done.returncode == 0, done.stderr
    assert "outputs of 32 images differ by" in done.stdout
    assert (tmp_path / "m.tflite").stat().st_size > 1e6
    done = programs.run(
        *("export", source, f"--output={tmp_path / 'm'}", "--image_size=32"),
        *("--form=inference", "--feature_vector", "--license=cc-by-4.0"),
    )
    assert done.returncode == 0, done.stderr
    assert workdir_lib.verify_directory(tmp_path / "m")
    card = (tmp_path / "m" / "README.md").read_text()
    assert "license: cc-by-4.0" in card and "a feature vector" in card


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--format=tflite", "--output=m.onnx"], ".tflite file"),
        (["--format=tflite", "--quantize=int8"], "--calibration"),
        (["--quantize=float16"], "--format=tflite"),
        (["--format=onnx", "--form=inference"], "--form is for"),
        (["--calibration=here"], "not for --format=saved_model"),
        (
            ["--format=tflite", "--calibration_images=3"],
            "needs --calibration",
        ),
    ],
)
def test_what_does_not_fit_is_one_line(arguments, said, tmp_path):
    if not any(a.startswith("--output") for a in arguments):
        arguments = [*arguments, f"--output={tmp_path / 'm.tflite'}"]
    done = programs.run("export", "--init_from=w.npz", *arguments)
    assert done.returncode == 1
    assert said in done.stderr and done.stderr.count("\n") == 1
