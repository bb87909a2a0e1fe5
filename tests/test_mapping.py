"""Examples are prepared several to a call or singly, to the same result."""

import gc

import numpy as np
import pytest
import tensorflow as tf

from bit_tf import mapping


@pytest.fixture(autouse=True)
def two_cores(monkeypatch):
    monkeypatch.setattr(mapping, "PARALLEL_CALLS", 2)


def vectors(total, length):
    """Returns the dataset of (i, "i"), `length` in every element."""
    numbers = tf.data.Dataset.range(total).batch(length)
    return numbers.map(lambda those: (those, tf.strings.as_string(those)))


def square(number, text):
    image = tf.fill((2, 2, 3), tf.cast(number, tf.float32) ** 2)
    return image, tf.strings.to_number(text, tf.int64)


@pytest.mark.parametrize("side", [8, 300, 5000])
@pytest.mark.parametrize("length", [1, 7, 16, 64])
@pytest.mark.parametrize("total", [1, 16, 45])
def test_every_example_comes_once_in_order(total, length, side):
    prepared = mapping.batches(
        vectors(total, length), square, size=10, side=side, drop_remainder=False
    )
    images, numbers = zip(*prepared.as_numpy_iterator(), strict=True)
    assert {len(some) for some in numbers[:-1]} <= {10}
    numbers, images = np.concatenate(numbers), np.concatenate(images)
    np.testing.assert_array_equal(numbers, np.arange(total))
    assert images.shape == (total, 2, 2, 3)
    np.testing.assert_array_equal(images[:, 1, 1, 2], numbers**2)


@pytest.mark.parametrize("side", [8, 5000])
def test_batches_are_of_one_known_size(side):
    prepared = mapping.batches(vectors(45, 7), square, size=10, side=side)
    assert prepared.element_spec[0].shape == (10, 2, 2, 3)
    assert len(list(prepared)) == 4


@pytest.mark.parametrize(
    ("cores", "size", "side", "expected"),
    [
        (2, 128, 128, 16),
        (2, 128, 224, 5),
        (2, 128, 512, 1),
        (2, 128, 600, 1),
        (2, 8, 32, 4),
        # A batch is for all cores.
        (64, 128, 32, 2),
        (64, 32, 32, 1),
    ],
)
def test_images_a_call(monkeypatch, cores, size, side, expected):
    monkeypatch.setattr(mapping, "PARALLEL_CALLS", cores)
    assert mapping.images_a_call(size=size, side=side) == expected


def test_python_is_called_after_its_caller_is_gone():
    def plus_one(number, text):
        del text
        found = tf.numpy_function(lambda n: n + 1, [number], tf.int64)
        return tf.ensure_shape(found, ())

    prepared = iter(mapping.batches(vectors(40, 8), plus_one, size=40, side=8))
    del plus_one
    gc.collect()
    assert next(prepared).numpy().tolist() == list(range(1, 41))


@pytest.mark.parametrize("side", [8, 5000])
def test_what_fails_is_told(side):
    def check(number, text):
        del text
        tf.debugging.assert_less(
            number, tf.cast(20, tf.int64), message="too large"
        )
        return number

    prepared = mapping.batches(vectors(40, 8), check, size=10, side=side)
    with pytest.raises(tf.errors.InvalidArgumentError, match="too large"):
        list(prepared)
