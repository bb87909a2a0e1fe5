r"""Every runtime that can use an exported model, against the network itself.

python experiments/consumers.py --images=FOLDER \
    --legacy_python=.venv-legacy/bin/python \
    > experiments/results/consumers/matrix.jsonl

Prints a JSON line per model and runtime: the largest difference of the logits
from those of an evaluation of the same files, as a share of the largest; top-1
agreement, the size of the file, and the time per image, one at a time, as a
multiple of the Keras model's. serving_default gets the files' bytes, so its
difference is what training and serving differ by. Each runtime is a
process of its own that cannot import bit_tf. `make legacy` builds the
environment of hub.*, which are left out without it.
"""

import argparse
import json
import os
import pathlib
import random
import subprocess
import sys
import tempfile
import time

import numpy as np
import tensorflow as tf

from bit_tf import data
from bit_tf import examples
from bit_tf import exportable
from bit_tf import image_file
from bit_tf import listed_files
from bit_tf import portable
from bit_tf import recipe
from bit_tf import resnet_v2
from bit_tf import saved_model
from bit_tf import serving
from bit_tf import workdir

MODELS = {"R26x0.5": 128, "R50x1": 224}
CLASSES = 100
IMAGES = 50
# Runtime -> which file, and whether it is of the environment with Keras 2.
CONSUMERS = {
    "hub_load": ("saved_model", True),
    "tfsm_layer": ("saved_model", False),
    "tfsm_layer_fine_tune": ("saved_model", False),
    "hub_layer": ("saved_model", True),
    "hub_layer_fine_tune": ("saved_model", True),
    "saved_model_cli": ("saved_model", False),
    "serving_default": ("saved_model", False),
    "serving_default (inference form)": ("inference", False),
    "hub_load (inference form)": ("inference", True),
    "tflite float32": ("none.tflite", False),
    "tflite float16": ("float16.tflite", False),
    "tflite dynamic": ("dynamic.tflite", False),
    "tflite int8": ("int8.tflite", False),
    "onnx": ("model.onnx", False),
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", required=True)
    parser.add_argument("--legacy_python")
    parser.add_argument(
        "--weights", help="instead: workdir of a run, or weights file"
    )
    parser.add_argument("--models", default=",".join(MODELS))
    given = parser.parse_args()
    files = list(listed_files.expand([given.images]))
    random.Random(0).shuffle(files)
    files = [f for f in files if f.lower().endswith((".jpg", ".jpeg"))]
    for name in given.models.split(","):
        if given.weights is None:
            subject = _random(name)
        elif pathlib.Path(given.weights).is_file():
            subject = exportable.of_weights(pathlib.Path(given.weights))
        else:
            subject = exportable.of_run(workdir.Workdir(given.weights))
        with tempfile.TemporaryDirectory() as directory:
            _measure(subject, files, pathlib.Path(directory), given)


def _random(name: str) -> exportable.Exportable:
    """Returns a network whose logits are not all alike, though untrained."""
    model = resnet_v2.build(name, CLASSES, seed=0)
    head = model.get_layer("head").conv.kernel
    head.assign(np.random.default_rng(0).normal(size=head.shape) * 0.1)
    return exportable.Exportable(
        model=model,
        class_names=[f"class {i}" for i in range(CLASSES)],
        crop=MODELS[name],
        preprocessing=recipe.SQUASH_EVAL.format(crop=MODELS[name]),
        weight_decay=1e-4,
    )


def _measure(subject, files, directory: pathlib.Path, given) -> None:
    contents = [image_file.read(file) for file in files[:150]]
    for index, content in enumerate(contents[:IMAGES]):
        (directory / f"{index}.jpg").write_bytes(content)
    read = serving.reader(subject.unit_preprocessing, subject.crop)
    images, errors = read(tf.constant(contents))
    assert not any(errors.numpy()), errors
    images = images.numpy()
    images, calibration = images[:IMAGES], images[IMAGES:]
    np.save(directory / "images.npy", images)
    call = tf.function(lambda x: subject.model(x * 2 - 1, training=False))
    wanted = _evaluated(subject, files[:IMAGES])
    for form, path in zip(
        saved_model.FORMS, ("saved_model", "inference"), strict=True
    ):
        saved_model.write(directory / path, subject, form=form)
    for quantize in portable.QUANTIZATIONS:
        portable.write_tflite(
            directory / f"{quantize}.tflite",
            subject,
            calibration,
            quantize=quantize,
        )
    portable.write_onnx(directory / "model.onnx", subject, images)
    for consumer, (file, is_legacy) in CONSUMERS.items():
        if is_legacy and not given.legacy_python:
            continue
        keras_ms = _milliseconds(call, images)
        result = directory / "result.npz"
        done = subprocess.run(
            [
                given.legacy_python if is_legacy else sys.executable,
                str(pathlib.Path(__file__).with_name("consumer.py")),
                consumer.split(" ")[0],
                *(str(directory / file), str(directory), str(result)),
            ],
            env=_environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        row = {
            "model": subject.model.name,
            "consumer": consumer,
            "megabytes": round(_size(directory / file) / 1e6, 2),
        }
        if done.returncode:
            row["error"] = done.stderr.strip().splitlines()[-1][:200]
            print(json.dumps(row), flush=True)
            continue
        with np.load(result) as found:
            if "losses" in found:
                row["losses"] = [round(float(x), 4) for x in found["losses"]]
                row["moved"] = f"{found['moved']} of {found['weights']}"
            else:
                error = np.abs(found["logits"] - wanted).max()
                same = found["logits"].argmax(1) == wanted.argmax(1)
                row["largest_difference"] = float(
                    f"{error / np.abs(wanted).max():.2g}"
                )
                row["agreement"] = float(same.mean())
                row["images"] = len(images)
                if np.isfinite(found["ms"]):
                    row["time"] = round(float(found["ms"]) / keras_ms, 2)
        print(json.dumps(row), flush=True)


def _evaluated(subject, files) -> np.ndarray:
    """Returns the logits that an evaluation of the files sees."""
    images = examples.Examples(
        names=files,
        contents=files,
        labels=np.zeros(len(files), np.int64),
        sizes=np.zeros((len(files), 2), np.int64),
        class_names=tuple(subject.class_names),
    )
    batches = data.for_evaluation(
        images,
        preprocessing=subject.preprocessing
        or recipe.SQUASH_EVAL.format(crop=subject.crop),
        crop=subject.crop,
        batch_size=10,
    )
    predict = tf.function(lambda x: subject.model(x, training=False))
    return np.concatenate([predict(x).numpy() for x, *_ in batches])


def _environment() -> dict[str, str]:
    """Returns that of the shell, without what belongs to this Python."""
    return {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("PYTHON", "TF_", "KERAS"))
    } | {"TF_CPP_MIN_LOG_LEVEL": "3", "TF_ENABLE_ONEDNN_OPTS": "1"}


def _milliseconds(call, images) -> float:
    times = []
    for image in images:
        began = time.perf_counter()
        call(image[None]).numpy()
        times.append(time.perf_counter() - began)
    return 1e3 * float(np.median(times))


def _size(path: pathlib.Path) -> int:
    if path.is_file():
        return path.stat().st_size
    return sum(f.stat().st_size for f in path.rglob("*") if f.is_file())


if __name__ == "__main__":
    main()
