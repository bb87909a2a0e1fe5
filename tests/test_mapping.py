"""Examples are prepared several to a call or singly, to the same result."""

import gc

import numpy as np
import pytest
import tensorflow as tf

from bit_tf import mapping


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
    prepared = mapping.each(vectors(total, length), square, side=side)
    assert prepared.element_spec[0].shape == (2, 2, 3)
    images, numbers = zip(*prepared.as_numpy_iterator(), strict=True)
    assert list(numbers) == list(range(total))
    found = [image.max() for image in images]
    np.testing.assert_array_equal(found, np.arange(total) ** 2)


def test_python_is_called_after_its_caller_is_gone():
    def plus_one(number, text):
        del text
        found = tf.numpy_function(lambda n: n + 1, [number], tf.int64)
        return tf.ensure_shape(found, ())

    prepared = iter(mapping.each(vectors(40, 8), plus_one, side=8).batch(40))
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

    prepared = mapping.each(vectors(40, 8), check, side=side)
    with pytest.raises(tf.errors.InvalidArgumentError, match="too large"):
        list(prepared)
