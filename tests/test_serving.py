"""Encoded images into the SavedModel: the same numbers, item by item."""

import base64
import io
import json

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from bit_tf import classifier as classifier_lib
from bit_tf import exportable
from bit_tf import image_file
from bit_tf import prediction
from bit_tf import resnet_v2
from bit_tf import saved_model
from bit_tf import serving
from bit_tf import weights
from tests import agreement

NAMES = tuple("abcdefg")
CROP = 48


def encoded(kind, *, seed=0, size=(61, 37), **options):
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (5, 7, 3)).astype(np.uint8))
    file = io.BytesIO()
    coarse.resize(size).save(file, kind, **options)
    return file.getvalue()


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    root = tmp_path_factory.mktemp("served")
    model = resnet_v2.build("R26x0.5", len(NAMES), seed=2)
    head = model.get_layer("head").conv.kernel
    head.assign(np.random.default_rng(3).normal(size=head.shape) * 0.1)
    weights.save(root / "model.npz", model)
    for head in ("softmax", "sigmoid", "squared"):
        saved_model.write(
            root / head,
            exportable.Exportable(
                model=model, class_names=NAMES, crop=CROP, head=head
            ),
        )
    return root


def call(path, contents, signature="serving_default"):
    root = tf.saved_model.load(str(path))
    found = root.signatures[signature](image_bytes=tf.constant(contents))
    return {name: value.numpy() for name, value in found.items()}


def test_bytes_give_what_prediction_gives(served, tmp_path):
    turned = Image.Exif()
    turned[0x0112] = 6
    contents = {
        "a.jpg": encoded("JPEG", quality=92),
        "b.png": encoded("PNG", seed=1, size=(20, 300)),
        "c.jpg": encoded("JPEG", seed=2, exif=turned.tobytes()),
        "d.gif": encoded("GIF", seed=3),
        "e.bmp": encoded("BMP", seed=4),
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    classifier = classifier_lib.load(served / "model.npz", image_size=CROP)
    expected = list(
        prediction.predict(
            classifier, [str(tmp_path / name) for name in contents], top_k=5
        )
    )
    found = call(served / "softmax", list(contents.values()))
    assert (found["error"] == b"").all()
    assert [[c.decode() for c in row] for row in found["classes"]] == [
        [NAMES[int(number)] for number in one.classes] for one in expected
    ]
    np.testing.assert_allclose(
        found["scores"], [one.probabilities for one in expected], atol=1e-5
    )
    images = tf.stack(
        [
            classifier.read(content, image_file.Reading())
            for content in contents.values()
        ]
    )
    error = agreement.relative_error(
        found["logits"], classifier.logits(images).numpy()
    )
    assert error < 1e-5


def test_one_bad_image_is_told_and_the_others_are_served(served):
    good = encoded("JPEG")
    bad = [b"", b"GIF89a", b"\x89PNG", good[:200], b"no image" * 9]
    bomb = io.BytesIO()
    Image.new("1", (9000, 9000)).save(bomb, "PNG")
    found = call(served / "softmax", [good, *bad, bomb.getvalue(), good])
    alone = call(served / "softmax", [good])
    for index in (0, -1):
        assert found["error"][index] == b""
        np.testing.assert_allclose(
            found["logits"][index], alone["logits"][0], atol=1e-5
        )
    unreadable, too_large = (
        text.encode() for text in (serving.UNREADABLE, serving.TOO_LARGE)
    )
    assert list(found["error"][1:-2]) == [unreadable] * len(bad)
    assert found["error"][-2] == too_large
    for name in ("logits", "probabilities", "scores"):
        assert (found[name][1:-1] == 0).all()
    assert (found["classes"][1:-1] == b"").all()


def test_sigmoids_and_numbers(served):
    content = encoded("PNG")
    logits = call(served / "softmax", [content])["logits"]
    found = call(served / "sigmoid", [content])
    np.testing.assert_allclose(
        found["probabilities"], 1 / (1 + np.exp(-logits)), rtol=1e-5
    )
    numbers = call(served / "squared", [content])
    assert set(numbers) == {"numbers", "error"}
    np.testing.assert_allclose(numbers["numbers"], logits, rtol=1e-5)


def test_the_rest_request_of_the_docs(served):
    """What TensorFlow Serving makes of the JSON; the server is not here.

    Of an object {"b64": ...} it makes the bytes, of a column of the request
    the tensor, of strings in the answer text.
    """
    contents = [encoded("JPEG"), b"no image"]
    body = json.dumps(
        {
            "signature_name": "serving_default",
            "inputs": {
                "image_bytes": [
                    {"b64": base64.b64encode(content).decode()}
                    for content in contents
                ]
            },
        }
    )
    request = json.loads(body)
    columns = {
        name: tf.constant([base64.b64decode(one["b64"]) for one in column])
        for name, column in request["inputs"].items()
    }
    root = tf.saved_model.load(str(served / "softmax"))
    answer = root.signatures[request["signature_name"]](**columns)
    # No name ends in _bytes, which would make the server encode strings.
    assert not any(name.endswith("_bytes") for name in answer)
    outputs = {
        name: (value.numpy().astype(str) if value.dtype == tf.string else value)
        for name, value in answer.items()
    }
    text = json.dumps(
        {"outputs": {k: np.asarray(v).tolist() for k, v in outputs.items()}},
        allow_nan=False,
    )
    told = json.loads(text)["outputs"]
    assert told["error"] == ["", serving.UNREADABLE]
    assert told["classes"][0][0] in NAMES


def test_warm_up_requests_can_be_read(served):
    # Without the package that defines them: their bytes, and what is in them.
    path = served / "softmax" / "assets.extra" / "tf_serving_warmup_requests"
    records = list(tf.data.TFRecordDataset(str(path)).as_numpy_iterator())
    assert len(records) == 2
    pictures = exportable.pictures(CROP)
    for record, count in zip(records, (1, 2), strict=True):
        assert b"serving_default" in record and b"image_bytes" in record
        for picture in pictures[:count]:
            assert picture in record
