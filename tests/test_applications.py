"""The networks as notebooks use them, in the habit of keras.applications."""

import inspect
import json
import pathlib

import keras
import numpy as np
import pytest

import bit_tf
from bit_tf import layout
from bit_tf import resnet_v2
from tests import agreement
from tests import published

IMAGES = np.random.default_rng(0).uniform(0, 255, (2, 48, 64, 3))
IMAGES = IMAGES.astype(np.float32)
NETWORKS = ("R50x1", "R101x1", "R50x3", "R101x3", "R152x2", "R152x4")


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "BiT-S-R50x1.npz"
    np.savez(path, **published.arrays("R50x1", 1000))
    return path


@pytest.fixture(scope="module")
def raw(file):
    """The same weights in the plain network."""
    from bit_tf import weights

    model = resnet_v2.build("R50x1", 1000)
    weights.load(file, model)
    return model


def test_all_six_are_offered():
    for name in NETWORKS:
        build = getattr(bit_tf, f"BiT_{name}")
        assert build.__name__ == f"BiT_{name}" and name in build.__doc__
        assert f"BiT_{name}" in dir(bit_tf)
    with pytest.raises(AttributeError, match="BiT_R9"):
        _ = bit_tf.BiT_R9


def test_arguments_are_those_of_keras_applications():
    ours = inspect.signature(bit_tf.BiT_R50x1).parameters
    theirs = inspect.signature(keras.applications.ResNet50V2).parameters
    # What is built on other layers is called on them instead.
    assert set(theirs) - set(ours) == {"input_tensor"}


def test_it_classifies_images_of_0_to_255(file, raw):
    model = bit_tf.BiT_R50x1(weights=file)
    wanted = keras.ops.softmax(raw(IMAGES / 127.5 - 1))
    assert agreement.relative_error(model(IMAGES), wanted) < agreement.ROUNDING


def test_without_preprocessing_it_takes_what_preprocess_input_gives(file, raw):
    model = bit_tf.BiT_R50x1(
        weights=file, include_preprocessing=False, classifier_activation=None
    )
    found = model(bit_tf.preprocess_input(IMAGES))
    wanted = raw(IMAGES / 127.5 - 1)
    assert agreement.relative_error(found, wanted) < agreement.ROUNDING


@pytest.mark.parametrize(
    ("pooling", "shape"),
    [(None, (2, 2, 2, 2048)), ("avg", (2, 2048)), ("max", (2, 2048))],
)
def test_without_the_classifier_it_gives_features(pooling, shape, file, raw):
    model = bit_tf.BiT_R50x1(weights=file, include_top=False, pooling=pooling)
    found = model(IMAGES).numpy()
    assert found.shape == shape == model.compute_output_shape(IMAGES.shape)
    relu = keras.Model(raw.input, raw.get_layer("relu").output)
    wanted = relu(IMAGES / 127.5 - 1).numpy()
    if pooling:
        wanted = getattr(np, {"avg": "mean", "max": "max"}[pooling])(
            wanted, axis=(1, 2)
        )
    assert agreement.relative_error(found, wanted) < agreement.ROUNDING


def test_other_classes_get_a_classifier_of_zeros(file, capsys):
    model = bit_tf.BiT_R50x1(weights=file, classes=4)
    np.testing.assert_allclose(model(IMAGES), np.full((2, 4), 0.25))
    assert "1000 classes; the new head for 4" in capsys.readouterr().out


def test_multi_label_weights_have_a_sigmoid(tmp_path):
    # Known by name and shapes as BiT-M, pre-trained with a loss per class.
    path = tmp_path / "BiT-M-R50x1.npz"
    arrays = published.arrays("R50x1", 2)
    features = arrays[layout.HEAD_KERNEL].shape[2]
    arrays[layout.HEAD_KERNEL] = np.zeros((1, 1, features, 21843), np.float32)
    arrays[layout.HEAD_BIAS] = np.zeros(21843, np.float32)
    np.savez(path, **arrays)
    model = bit_tf.BiT_R50x1(weights=path)
    np.testing.assert_allclose(model(IMAGES)[:, :3], np.full((2, 3), 0.5))


def test_fresh_weights_and_a_fixed_size(tmp_path):
    model = bit_tf.BiT_R50x1(
        weights=None, classes=3, input_shape=(64, 48, 3), name="mine"
    )
    assert model.name == "mine" and model.input_shape == (None, 64, 48, 3)
    model.save(tmp_path / "m.keras")
    again = keras.saving.load_model(tmp_path / "m.keras")
    assert again.input_shape == (None, 64, 48, 3)
    assert again.get_config() == model.get_config()
    images = IMAGES.transpose(0, 2, 1, 3)
    np.testing.assert_array_equal(model(images), again(images))


def test_the_pyramid_has_the_strides_of_detectors(file):
    model = bit_tf.BiT_R50x1(weights=file, include_top=False)
    pyramid = keras.Model(model.input, model.pyramid_outputs)
    shapes = {k: v.shape[1:] for k, v in pyramid(IMAGES).items()}
    assert shapes == {
        "P2": (12, 16, 256),
        "P3": (6, 8, 512),
        "P4": (3, 4, 1024),
        "P5": (2, 2, 2048),
    }


def test_single_layers_can_be_frozen(file):
    model = bit_tf.BiT_R50x1(weights=file, include_top=False, pooling="avg")
    names = [layer.name for layer in model.layers]
    assert names[2:7] == ["root_block", "block1", "block2", "block3", "block4"]
    before = len(model.trainable_variables)
    for layer in model.layers[:4]:
        layer.trainable = False
    left = {v.path for v in model.trainable_variables}
    frozen = {v.path for v in model.variables} - left
    assert len(left) < before == len(left) + len(frozen)
    assert all("root_block" in path or "block1" in path for path in frozen)


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        ({"weights": "none.npz"}, "none.npz do not exist"),
        ({"weights": "BiT-M-R50x9"}, "no weights were published"),
        ({"weights": "BiT-M-R101x1"}, "no way to"),
        ({"weights": "imagenet"}, "BiT-M-R50x1-ILSVRC2012.npz"),
        ({"weights": "imagenet21k"}, "BiT-M-R50x1.npz"),
        ({"weights": None, "pooling": "max"}, "include_top=False"),
        ({"weights": None, "include_top": False, "classes": 3}, "classes=3"),
        (
            {"weights": None, "include_top": False, "pooling": "sum"},
            "pooling='sum'",
        ),
    ],
)
def test_what_is_not_possible_is_said(arguments, wanted):
    with pytest.raises(ValueError, match=wanted):
        bit_tf.BiT_R50x1(**arguments)


def test_weights_of_another_architecture_are_refused(file):
    with pytest.raises(ValueError, match="is of R50x1, and R101x1 is wanted"):
        bit_tf.BiT_R101x1(weights=file)


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float32, np.float64])
def test_preprocess_input_is_kerass_tf_mode(dtype):
    x = np.array([[0, 127, 255]], dtype)
    wanted = keras.applications.resnet_v2.preprocess_input(x.astype(np.float64))
    for given in (x, keras.ops.convert_to_tensor(x)):
        found = np.asarray(bit_tf.preprocess_input(given))
        assert found.dtype in (np.float32, np.float64)
        np.testing.assert_allclose(found, wanted, atol=1e-6)
    with pytest.raises(ValueError, match="str"):
        bit_tf.preprocess_input("cat.jpg")


def test_predictions_are_named():
    scores = np.zeros((2, 1000))
    scores[0, 386], scores[0, 101], scores[1, 0] = 0.7, 0.2, 0.9
    first, second = bit_tf.decode_predictions(scores, top=2)
    assert first == [
        ("n02504458", "African elephant, Loxodonta africana", 0.7),
        ("n01871265", "tusker", 0.2),
    ]
    assert second[0] == ("n01440764", "tench, Tinca tinca", 0.9)
    large = np.zeros((1, 21843))
    large[0, 9205] = 3
    assert bit_tf.decode_predictions(large)[0][0][0] == "n03931044"


@pytest.mark.parametrize("shape", [(1000,), (2, 10), (1, 1000, 1)])
def test_other_predictions_have_no_names(shape):
    with pytest.raises(ValueError, match="allowed are"):
        bit_tf.decode_predictions(np.zeros(shape))


def test_importing_the_package_imports_no_tensorflow():
    import subprocess
    import sys

    code = (
        "import sys, bit_tf, json; bit_tf.__version__; "
        "print(json.dumps([m for m in ('tensorflow', 'keras') "
        "if m in sys.modules]))"
    )
    out = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=pathlib.Path(bit_tf.__file__).parents[1],
    ).stdout
    assert json.loads(out) == []
