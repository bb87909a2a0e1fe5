"""Images in memory, decoded and resized: all but what is drawn anew."""

import math
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from bit_tf import data
from bit_tf import examples as examples_lib
from bit_tf import mapping
from bit_tf import preprocessing
from bit_tf import recipe as recipe_lib
from bit_tf import records

_BATCH = 64
# Of TensorFlow's own memory, bytes.
_ALIGNMENT = 64


def resized(
    examples: examples_lib.Images,
    recipe: recipe_lib.Recipe,
    *,
    most_mb: int,
    progress: Callable[[int], None] = lambda done: None,
    log: Callable[[str], None] = lambda text: None,
) -> tuple[tf.Tensor, tf.Tensor] | None:
    """Prepares all images once, if they fit and it is worth it.

    Args:
        examples: N images to train on.
        recipe: what is done to them.
        most_mb: millions of bytes that they may take.
        progress: called with the number of images done.
        log: called with a line that says what came of it.

    Returns:
        (N, side, side, 3) uint8 and (N, outputs) float32 targets, both for
        `data.for_training`; None if every image is to be read each time.
    """
    resize, _, is_steady = preprocessing.parse_to_uint8(
        recipe.train_preprocessing
    )
    count = len(examples)
    used = recipe.total_steps * recipe.batch_size
    why = None
    if isinstance(examples, records.Stream):
        why = "they can only be read in order"
    elif not is_steady:
        why = "what is cut out of them is drawn before it is resized"
    elif used < 2 * count:
        why = "most are used once"
    else:
        read = data.reader(examples)
        side = _side(recipe)
        megabytes = count * side**2 * 3 / 1e6
        if megabytes > most_mb:
            why = f"they take {megabytes:,.0f} MB, more than {most_mb:,}"
    if why:
        log(f"images are not kept in memory: {why}")
        return None

    def load(index, item):
        content, targets = read(item)
        image = resize(content, tf.zeros((2,), tf.int64))
        return tf.ensure_shape(image, (side, side, 3)), targets

    indices = tf.data.Dataset.range(count).batch(_BATCH)
    indexed = indices.map(lambda those: (those, those))
    prepared = mapping.batches(
        data.items(examples, indexed),
        load,
        size=_BATCH,
        side=side,
        drop_remainder=False,
    )
    images = _room((count, side, side, 3))
    targets, done = [], 0
    for pixels, more in mapping.untuned(prepared):
        images[done : done + len(pixels)] = pixels.numpy()
        targets.append(more)
        done += len(pixels)
        progress(done)
    log(f"images are kept in memory: {megabytes:,.0f} MB")
    # Shared with TensorFlow, not copied: two of them might not fit.
    shared = tf.experimental.dlpack.from_dlpack(images.__dlpack__())
    return shared, tf.concat(targets, axis=0)


def _room(shape: tuple[int, ...]) -> np.ndarray:
    """Returns an array of bytes where TensorFlow wants its tensors."""
    size = math.prod(shape)
    room = np.empty(size + _ALIGNMENT, np.uint8)
    first = -room.ctypes.data % _ALIGNMENT
    return room[first : first + size].reshape(shape)


def _side(recipe: recipe_lib.Recipe) -> int:
    """Returns the side of the images before anything is drawn, pixels."""
    resize, *_ = preprocessing.parse_to_uint8(recipe.train_preprocessing)
    content = tf.io.encode_png(np.zeros((1, 1, 3), np.uint8))
    return resize(content, tf.zeros((2,), tf.int64)).shape[0]
