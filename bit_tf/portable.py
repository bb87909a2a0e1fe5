"""A network for other runtimes: TFLite, ONNX, and Keras' own file.

All but the last hold the inference form: kernels standardised, nothing that
needs this package or TensorFlow.
"""

import dataclasses
import io
import json
import pathlib
import tempfile
import warnings
import zipfile
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from bit_tf import exportable as exportable_lib
from bit_tf import serving
from bit_tf import workdir as workdir_lib

QUANTIZATIONS = ("none", "float16", "dynamic", "int8")
OPSET = 18
INPUT = "images"
# Root mean square of what a quantisation may change, of the outputs' own.
TOLERANCES = {"none": 1e-4, "float16": 1e-2, "dynamic": 0.25, "int8": 0.5}
# What stays float32 under int8: the statistics of GroupNorm lose too much,
# and between 8-bit convolutions they are the smaller part of the time.
_FLOAT_OPERATIONS = (
    *("MEAN", "SUM", "RSQRT", "SQUARE", "SQUARED_DIFFERENCE"),
    *("SUB", "MUL", "ADD", "RESHAPE", "TILE", "BROADCAST_TO"),
    *("SOFTMAX", "LOGISTIC"),
)


@dataclasses.dataclass(frozen=True)
class Difference:
    """How far a file's outputs are from the network's own.

    Args:
        largest: of all outputs, as a share of the largest output.
        rms: root mean square, as a share of that of the outputs.
        agreement: share of images with the same likeliest class; None where
            outputs are no classes.
        images: how many were compared.
    """

    largest: float
    rms: float
    agreement: float | None
    images: int

    def __str__(self) -> str:
        text = (
            f"outputs of {self.images} images differ by up to "
            f"{100 * self.largest:.2g} % of the largest"
        )
        if self.agreement is not None:
            text += f", the same class for {100 * self.agreement:.1f} %"
        return text


def write_tflite(
    path: pathlib.Path,
    exportable: exportable_lib.Exportable,
    images: np.ndarray,
    *,
    quantize: str = "none",
) -> Difference:
    """Writes a TFLite model of one image at a time.

    Its signature "serving_default" takes `images`, (1, crop, crop, 3) float32
    RGB in [0, 1], and returns what `serving.outputs` does, without names. The
    file is a zip archive too, of labels.txt and bit_tf.json, where readers of
    TFLite metadata look for the labels.

    Args:
        path: of the file, replaced if it is there, complete or untouched.
        exportable: what to write.
        images: (N, crop, crop, 3) float32 in [0, 1], real ones: what is
            written is compared on them, and int8 calibrated with them.
        quantize: "float16" weights; "dynamic", weights of 8 bits, and images
            of a convolution scaled to 8 bits as they come; or "int8", whose
            scales are known beforehand.

    Raises:
        RuntimeError: the file gives other outputs.
    """
    apply = serving.network(
        exportable.model, inference=True, for_converter=True
    )
    spec = tf.TensorSpec((1, *images.shape[1:]), tf.float32, name=INPUT)
    root = tf.Module()
    root.told = tf.function(
        lambda images: serving.outputs(
            apply(images), head=exportable.head if exportable.has_head else None
        ),
        input_signature=[spec],
        autograph=False,
    )

    def converter():
        made = tf.lite.TFLiteConverter.from_concrete_functions(
            [root.told.get_concrete_function()], root
        )
        if quantize != "none":
            made.optimizations = [tf.lite.Optimize.DEFAULT]
        if quantize == "float16":
            made.target_spec.supported_types = [tf.float16]
        return made

    if quantize == "int8":
        content = _in_int8(converter(), images)
    else:
        content = converter().convert()
    content = _with_files(content, exportable)

    def run():
        with warnings.catch_warnings():
            # That another package has a newer one.
            warnings.simplefilter("ignore")
            made = tf.lite.Interpreter(model_content=content)
        signature = made.get_signature_runner()
        return np.concatenate(
            [
                signature(**{INPUT: image[None]})[exportable.output]
                for image in images
            ]
        )

    difference = _compared(run(), exportable, images, quantize)
    workdir_lib.write_file(path, lambda file: file.write_bytes(content))
    return difference


def _in_int8(converter, images: np.ndarray) -> bytes:
    def calibration():
        return ([image[None]] for image in images)

    converter.representative_dataset = calibration
    options = tf.lite.experimental.QuantizationDebugOptions(
        denylisted_ops=list(_FLOAT_OPERATIONS)
    )
    debugger = tf.lite.experimental.QuantizationDebugger(
        converter=converter,
        debug_dataset=calibration,
        debug_options=options,
    )
    return debugger.get_nondebug_quantized_model()


def _with_files(content: bytes, exportable: exportable_lib.Exportable) -> bytes:
    """Returns a TFLite model with a zip archive behind it."""
    file = io.BytesIO(content)
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr(
            "labels.txt", "".join(f"{n}\n" for n in exportable.class_names)
        )
        archive.writestr(
            "bit_tf.json", json.dumps(exportable.facts(), indent=1)
        )
    return file.getvalue()


def write_onnx(
    path: pathlib.Path,
    exportable: exportable_lib.Exportable,
    images: np.ndarray,
) -> Difference:
    """Writes an ONNX model of any number and size of images.

    Input `images` and outputs are as those of the SavedModel's "image_tensor",
    without names, which are in the metadata: "class_names", a JSON list, and
    "bit_tf", what is known of the model.

    Args:
        path: of the file, replaced if it is there, complete or untouched.
        exportable: what to write.
        images: see `write_tflite`.

    Raises:
        ImportError: tf2onnx or onnxruntime are not installed.
        RuntimeError: the file gives other outputs.
    """
    import onnxruntime
    import tf2onnx

    apply = serving.network(
        exportable.model, inference=True, for_converter=True
    )
    spec = tf.TensorSpec((None, None, None, 3), tf.float32, name=INPUT)
    told = tf.function(
        lambda images: serving.outputs(
            apply(images), head=exportable.head if exportable.has_head else None
        ),
        input_signature=[spec],
        autograph=False,
    )
    model, _ = tf2onnx.convert.from_function(
        told, input_signature=[spec], opset=OPSET
    )
    facts = exportable.facts()
    for key, value in (
        ("class_names", facts["class_names"]),
        ("bit_tf", facts),
    ):
        model.metadata_props.add(key=key, value=json.dumps(value))
    content = model.SerializeToString()
    session = onnxruntime.InferenceSession(
        content, providers=["CPUExecutionProvider"]
    )
    found = [
        session.run([exportable.output], {INPUT: image[None]})[0]
        for image in images
    ]
    difference = _compared(np.concatenate(found), exportable, images, "none")
    workdir_lib.write_file(path, lambda file: file.write_bytes(content))
    return difference


def write_keras(
    path: pathlib.Path,
    exportable: exportable_lib.Exportable,
    images: np.ndarray,
) -> Difference:
    """Writes Keras' own file, with raw kernels; reading it needs bit_tf.

    Images are in [-1, 1] there, as the network itself has them.

    Args:
        path: of the file, which ends in .keras; see `write_tflite`.
        exportable: what to write.
        images: see `write_tflite`.

    Raises:
        RuntimeError: the file gives other outputs.
    """
    with tempfile.TemporaryDirectory(dir=path.absolute().parent) as directory:
        candidate = pathlib.Path(directory, "model.keras")
        exportable.model.save(candidate)
        loaded = keras.models.load_model(candidate, compile=False)
        found = _in_batches(loaded, images)
        difference = _compared(found, exportable, images, "none")
        content = candidate.read_bytes()
    workdir_lib.write_file(path, lambda file: file.write_bytes(content))
    return difference


def _in_batches(model: Callable, images: np.ndarray) -> np.ndarray:
    return np.concatenate(
        [
            np.asarray(model(images[i : i + 8] * 2 - 1, training=False))
            for i in range(0, len(images), 8)
        ]
    )


def _compared(
    found: np.ndarray,
    exportable: exportable_lib.Exportable,
    images: np.ndarray,
    quantize: str,
) -> Difference:
    wanted = _in_batches(exportable.model, images)
    errors = found - wanted
    scale = max(1e-6, float(np.sqrt((wanted**2).mean())))
    agreement = None
    if exportable.output == "logits":
        same = found.argmax(axis=1) == wanted.argmax(axis=1)
        agreement = float(same.mean())
    difference = Difference(
        largest=float(np.abs(errors).max() / max(1e-6, np.abs(wanted).max())),
        rms=float(np.sqrt((errors**2).mean())) / scale,
        agreement=agreement,
        images=len(images),
    )
    if not difference.rms <= TOLERANCES[quantize]:
        raise RuntimeError(
            f"what would be written is not the same network: {difference}; "
            "nothing is written."
        )
    return difference
