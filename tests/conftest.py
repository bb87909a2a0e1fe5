"""Devices and images for the tests."""

import os
import pathlib
import tempfile
import zlib

# As the programs set them, before TensorFlow is imported.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
# No test fetches anything from the internet: nobody listens here.
os.environ["BIT_TF_MIRROR"] = "http://127.0.0.1:9"
KERAS_HOME = tempfile.TemporaryDirectory(prefix="bit_tf_keras_home_")
os.environ["KERAS_HOME"] = KERAS_HOME.name

import numpy as np
import pytest
from PIL import Image

ROOT = pathlib.Path(__file__).parents[1]


def pytest_configure():
    # Four logical devices in every test run, or what splits a batch is never
    # tested. Nothing may have used TensorFlow before.
    import tensorflow as tf

    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(
        cpu, [tf.config.LogicalDeviceConfiguration()] * 4
    )


def pytest_collection_modifyitems(items):
    if not os.environ.get("BIT_TF_TEST_NETWORK"):
        skip = pytest.mark.skip(
            reason="downloads data sets; BIT_TF_TEST_NETWORK=1 runs it"
        )
        for item in items:
            if "network" in item.keywords:
                item.add_marker(skip)


def save_image(path: pathlib.Path, *, value: int, size=(20, 24)) -> None:
    """Writes a noisy picture, (height, width), around one gray value."""
    rng = np.random.default_rng(zlib.crc32(f"{path.name} {value}".encode()))
    noise = rng.integers(-30, 30, (*size, 3))
    pixels = np.clip(value + noise, 0, 255).astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def image_folder(tmp_path):
    """A folder of two easy classes, train/ and test/."""
    root = tmp_path / "images"
    for split, count in (("train", 6), ("test", 5)):
        for name, value in (("dark", 60), ("light", 190)):
            for number in range(count):
                save_image(root / split / name / f"{number}.png", value=value)
    return root


@pytest.fixture
def shared_data():
    """Real images beside the project; $BIT_TF_TEST_DATA points elsewhere."""
    path = pathlib.Path(
        os.environ.get("BIT_TF_TEST_DATA", ROOT.parent / "shared" / "data")
    )
    if not path.is_dir():
        pytest.skip(f"no real images at {path}; set BIT_TF_TEST_DATA")
    return path
