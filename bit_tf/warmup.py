"""Requests that TensorFlow Serving sends to a model before it is ready.

Without them the first user waits until the graph is optimised. The file holds
`tensorflow.serving.PredictionLog` messages; as the package that defines them
would be needed for these few bytes alone, they are written here
(prediction_log.proto, predict.proto and model.proto of TensorFlow Serving).
"""

import pathlib
from collections.abc import Sequence

import tensorflow as tf

PATH = "assets.extra/tf_serving_warmup_requests"
# Numbers of the fields.
_PREDICT_LOG, _REQUEST = 6, 1
_MODEL_SPEC, _INPUTS, _SIGNATURE_NAME = 1, 2, 3
_KEY, _VALUE = 1, 2


def write(directory: pathlib.Path, images: Sequence[bytes]) -> None:
    """Writes one request with one image, and one with all.

    Args:
        directory: of the SavedModel, whose "serving_default" takes
            `image_bytes`.
        images: encoded.
    """
    path = directory / PATH
    path.parent.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for batch in ([images[0]], list(images)):
            writer.write(_request(batch))


def _request(images: list[bytes]) -> bytes:
    tensor = tf.make_tensor_proto(images, tf.string).SerializeToString()
    inputs = _field(_KEY, b"image_bytes") + _field(_VALUE, tensor)
    spec = _field(_SIGNATURE_NAME, b"serving_default")
    request = _field(_MODEL_SPEC, spec) + _field(_INPUTS, inputs)
    return _field(_PREDICT_LOG, _field(_REQUEST, request))


def _field(number: int, content: bytes) -> bytes:
    """Returns a field of a protocol buffer that has a length."""
    return bytes([number << 3 | 2]) + _varint(len(content)) + content


def _varint(number: int) -> bytes:
    found = bytearray()
    while number >= 128:
        found.append(number & 127 | 128)
        number >>= 7
    return bytes([*found, number])
