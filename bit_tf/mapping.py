"""What is done to each example of a tf.data.Dataset, on every core."""

import os
from collections.abc import Callable

import tensorflow as tf

# Images that are read and changed at once.
PARALLEL_CALLS = os.cpu_count() or 1
# See `images_a_call`.
_PIXELS_A_CALL = 1 << 18
_IMAGES_A_CALL = 16


def batches(
    examples: tf.data.Dataset,
    load: Callable,
    *,
    size: int,
    side: int,
    drop_remainder: bool = True,
) -> tf.data.Dataset:
    """Returns batches of load(*example), in order.

    Args:
        examples: has several in every element, along the first axis.
        load: a function of one of them, without that axis. What it returns is
            of known shape.
        size: of a batch.
        side: of the images that it returns, pixels.
        drop_remainder: whether a last batch that is smaller is left out.
    """
    at_once = images_a_call(size=size, side=side)
    singly = examples.unbatch()
    if at_once == 1:
        return on_every_core(singly, load).batch(
            size, drop_remainder=drop_remainder
        )
    # Traced once, for what it returns and for the loop.
    traced = tf.function(load, autograph=False).get_concrete_function(
        *singly.element_spec
    )
    returned = tf.nest.map_structure(
        tf.TensorSpec.from_tensor, traced.structured_outputs
    )

    def load_several(*several):
        return tf.map_fn(
            lambda one: traced(*one),
            several,
            fn_output_signature=returned,
            # All cores are busy with other calls.
            parallel_iterations=1,
        )

    return on_every_core(examples.rebatch(at_once), load_several).rebatch(
        size, drop_remainder=drop_remainder
    )


def images_a_call(*, size: int, side: int) -> int:
    """Returns how many images of `side` pixels `batches` prepares to a call.

    A call costs as much as a small image. Large ones would take memory that
    they need not, and every core is to have work on a batch of `size`.
    """
    affordable = min(_PIXELS_A_CALL // side**2, size // PARALLEL_CALLS)
    return max(1, min(_IMAGES_A_CALL, affordable))


def on_every_core(
    elements: tf.data.Dataset, function: Callable
) -> tf.data.Dataset:
    """Returns function(*element) of each element, in order."""
    return elements.map(
        tf.autograph.experimental.do_not_convert(function),
        num_parallel_calls=PARALLEL_CALLS,
        deterministic=True,
    )


def untuned(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Returns a dataset that TensorFlow does not tune while it is read.

    The thread that tunes sleeps twice as long every time, up to a minute, and
    whoever is done with an iterator waits until it wakes: evaluations, and the
    ends of trainings, would take up to twice as long.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.with_options(options)
