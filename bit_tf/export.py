"""Writes the model of a run, or of a weights file, for others to use.

python -m bit_tf.export --workdir=DIR [--output=PATH]
python -m bit_tf.export --init_from=FILE --output=PATH
python -m bit_tf.export --workdir=DIR --format=tflite --quantize=float16
"""

import importlib.util
import itertools
import pathlib
import random

from absl import flags

from bit_tf import image_file
from bit_tf import importing
from bit_tf import labels
from bit_tf import listed_files
from bit_tf import program
from bit_tf import sources
from bit_tf import tasks
from bit_tf import workdir as workdir_lib

# What is written, and how its name ends.
_FORMATS = {
    "saved_model": "",
    "tflite": ".tflite",
    "onnx": ".onnx",
    "keras": ".keras",
}
# Of the images of this package, how many an export is compared on.
_PICTURES = 32

_WORKDIR = flags.DEFINE_string(
    "workdir", None, "Directory of a run that has ended."
)
_INIT_FROM = flags.DEFINE_string(
    "init_from",
    None,
    "Instead of --workdir: a published name such as BiT-M-R50x1-ILSVRC2012, "
    "or a file of any format that bit_tf.convert reads.",
)
_OUTPUT = flags.DEFINE_string(
    "output",
    None,
    "What to write; replaced if it is a SavedModel, or a file of that format. "
    "Default: saved_model/, model.tflite, model.onnx or model.keras in the "
    "workdir.",
)
_FORMAT = flags.DEFINE_enum(
    "format",
    "saved_model",
    list(_FORMATS),
    "saved_model: for TensorFlow, Keras, TF-Hub and TensorFlow Serving. "
    "tflite, onnx: for other runtimes, in the inference form. keras: for "
    "bit_tf and Keras 3.",
)
_QUANTIZE = flags.DEFINE_enum(
    "quantize",
    "none",
    ["none", "float16", "dynamic", "int8"],
    "With --format=tflite. float16: half the size. dynamic: a quarter, weights "
    "of 8 bits. int8: the same and faster, but further off, with convolutions "
    "in 8 bits; needs --calibration.",
)
_CALIBRATION = flags.DEFINE_string(
    "calibration",
    None,
    "Folder, or pattern, of some hundred images like those that will come: "
    "int8 is calibrated with them, and what is written is compared on them. "
    "Default, but for int8: images of this package.",
)
_CALIBRATION_IMAGES = flags.DEFINE_integer(
    "calibration_images",
    100,
    "How many of --calibration are taken, drawn at random.",
    lower_bound=1,
    upper_bound=10_000,
)
_LABELS = flags.DEFINE_string(
    "labels",
    None,
    "With --init_from: ilsvrc2012, imagenet21k, or a text file with a class "
    "name per line. Default: those of a published file by its name, else "
    "numbers.",
)
_IMAGE_SIZE = flags.DEFINE_integer(
    "image_size",
    None,
    "With --init_from: side that images should be resized to, pixels. Default: "
    "that of a published file by its name, else 224.",
    lower_bound=1,
    upper_bound=2**15,
)
_FORM = flags.DEFINE_enum(
    "form",
    "fine_tunable",
    ["fine_tunable", "inference"],
    "fine_tunable: with raw kernels. inference: with kernels that are "
    "standardised already; faster, and cannot be trained.",
)
_FEATURE_VECTOR = flags.DEFINE_bool(
    "feature_vector",
    False,
    "Leave the head out: features instead of logits. Weights without a head "
    "are always written so.",
)
_LICENSE = flags.DEFINE_string(
    "license",
    None,
    "Of the weights, for the model card, as model hubs name it. Default: "
    "apache-2.0 for what BiT's authors published, else other.",
)
program.define_mirror()


def main() -> None:
    if (_WORKDIR.value is None) == (_INIT_FROM.value is None):
        raise ValueError(
            "give either --workdir, of a run, or --init_from, weights."
        )
    if _INIT_FROM.value is not None and _OUTPUT.value is None:
        raise ValueError("--init_from needs --output, what to write.")
    if _INIT_FROM.value is None:
        for flag in (_LABELS, _IMAGE_SIZE):
            if flag.present:
                raise ValueError(
                    f"--{flag.name} is for --init_from: a run knows its own."
                )
    _check_format()
    workdir = None
    if _INIT_FROM.value is None:
        workdir = workdir_lib.Workdir(_WORKDIR.value)
    output = _output(workdir)
    subject = _of_weights() if workdir is None else _of_run(workdir)
    with importing.quickly():
        from bit_tf import exportable
        from bit_tf import saved_model

    if _FEATURE_VECTOR.value:
        subject = exportable.without_head(subject)
    if _FORMAT.value == "saved_model":
        saved_model.write(output, subject, form=_FORM.value)
        program.say(f"SavedModel    {output}")
    else:
        _write_portable(output, subject)


def _check_format() -> None:
    """Raises ValueError for flags that the format has no use for."""
    name = _FORMAT.value
    if name != "saved_model" and _FORM.present:
        raise ValueError(
            f"--form is for --format=saved_model; {name} has one form: drop it."
        )
    if name != "tflite" and _QUANTIZE.value != "none":
        raise ValueError(
            f"--quantize={_QUANTIZE.value} is for --format=tflite, not {name}."
        )
    if _QUANTIZE.value == "int8" and _CALIBRATION.value is None:
        raise ValueError(
            "--quantize=int8 needs --calibration, images like those that will "
            "come."
        )
    if name == "saved_model" and _CALIBRATION.value is not None:
        raise ValueError("--calibration is not for --format=saved_model.")
    if _CALIBRATION.value is None and _CALIBRATION_IMAGES.present:
        raise ValueError("--calibration_images needs --calibration.")
    if name == "onnx":
        for module in ("tf2onnx", "onnxruntime"):
            if importlib.util.find_spec(module) is None:
                raise ValueError(
                    f"--format=onnx needs {module}: pip install 'bit_tf[onnx]'."
                )


def _output(workdir: workdir_lib.Workdir | None) -> pathlib.Path:
    """Returns where to write, which holds nothing else."""
    if _FORMAT.value == "saved_model":
        default = workdir and workdir.saved_model
        output = pathlib.Path(_OUTPUT.value or default).expanduser()
        if output.exists() and not (output / "saved_model.pb").exists():
            raise ValueError(
                f"output {output} exists and is not a SavedModel: give another "
                "--output."
            )
        return output
    ending = _FORMATS[_FORMAT.value]
    default = workdir and workdir.path / f"model{ending}"
    output = pathlib.Path(_OUTPUT.value or default).expanduser()
    if output.suffix != ending or output.is_dir():
        raise ValueError(
            f"output {output} is not the name of a {ending} file, which "
            f"--format={_FORMAT.value} writes: give another --output."
        )
    output.parent.mkdir(parents=True, exist_ok=True)
    return output


def _write_portable(output: pathlib.Path, subject) -> None:
    with importing.quickly():
        from bit_tf import portable

    images = _images(subject)
    with importing.quietly():
        if _FORMAT.value == "tflite":
            difference = portable.write_tflite(
                output, subject, images, quantize=_QUANTIZE.value
            )
        elif _FORMAT.value == "onnx":
            difference = portable.write_onnx(output, subject, images)
        else:
            difference = portable.write_keras(output, subject, images)
    size = output.stat().st_size / 1e6
    program.say(f"{difference}, against the network itself")
    program.say(f"{_FORMAT.value:<14}{output} ({size:.1f} MB)")


def _images(subject):
    """Returns (N, crop, crop, 3) images to compare on, in [0, 1]."""
    import tensorflow as tf

    from bit_tf import serving

    if _CALIBRATION.value is None:
        _, shipped = sources.load(tasks.parse("builtin:patches"))
        step = len(shipped) // _PICTURES
        contents = list(shipped.contents[::step][:_PICTURES])
    else:
        files = list(listed_files.expand([_CALIBRATION.value]))
        random.Random(0).shuffle(files)
        good = (f for f in files if not isinstance(image_file.inspect(f), str))
        contents = [
            image_file.read(file)
            for file in itertools.islice(good, _CALIBRATION_IMAGES.value)
        ]
    read = serving.reader(subject.unit_preprocessing, subject.crop)
    if not contents:
        raise ValueError(
            f"--calibration={_CALIBRATION.value}: none of the {len(files)} "
            "files is an image that can be used."
        )
    images, _ = read(tf.constant(contents))
    return images.numpy()


def _of_run(workdir: workdir_lib.Workdir):
    with importing.quickly():
        from bit_tf import exportable

    return exportable.of_run(workdir, license=_LICENSE.value)


def _of_weights():
    class_names = None
    if _LABELS.value in ("ilsvrc2012", "imagenet21k"):
        class_names = labels.class_names(_LABELS.value)
    elif _LABELS.value is not None:
        file = pathlib.Path(_LABELS.value).expanduser()
        class_names = file.read_text(encoding="utf-8").splitlines()
    path = program.weights_file(_INIT_FROM.value)
    with importing.quickly():
        from bit_tf import exportable

    return exportable.of_weights(
        path,
        class_names=class_names,
        image_size=_IMAGE_SIZE.value,
        license=_LICENSE.value,
    )


if __name__ == "__main__":
    program.run(main)
