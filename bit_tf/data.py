"""Examples + Recipe -> tf.data: batches that depend on (seed, step) alone."""

import tensorflow as tf

from bit_tf import examples as examples_lib
from bit_tf import preprocessing
from bit_tf import recipe as recipe_lib

# Separate streams of random numbers drawn from one seed.
_ORDER, _AUGMENTATION, _MIXUP = range(3)


def _stream(seed: int, stream: int) -> tf.Tensor:
    """Returns a (2,) seed of its own for one use of the run's seed."""
    return tf.random.experimental.stateless_fold_in(
        tf.constant([seed, 0], tf.int64), stream
    )


def index_at(position: tf.Tensor, *, num_examples: int, seed: int) -> tf.Tensor:
    """Returns which example stands at `position` of the endless sequence.

    Position p belongs to epoch p // N. Every epoch is a permutation of its
    own, computed per position and never stored, so that a run can begin
    anywhere and any number of threads may ask.

    Args:
        position: scalar int64, from 0.
        num_examples: N.
        seed: the run's seed.

    Returns:
        Scalar int64 in [0, N).
    """
    epoch = position // num_examples
    order = tf.random.experimental.stateless_fold_in(
        _stream(seed, _ORDER), epoch
    )
    return tf.random.experimental.index_shuffle(
        position % num_examples,
        order,
        tf.constant(num_examples - 1, tf.int64),
    )


def _reader(examples: examples_lib.Examples):
    """Returns a function of an index: (encoded image, label)."""
    contents = tf.constant(list(examples.contents))
    labels = tf.constant(examples.labels)
    in_memory = examples.in_memory

    def read(index):
        content = contents[index]
        if not in_memory:
            content = tf.io.read_file(content)
        return content, labels[index]

    return read


def for_training(
    examples: examples_lib.Examples,
    recipe: recipe_lib.Recipe,
    *,
    seed: int,
    first_step: int = 0,
) -> tf.data.Dataset:
    """Returns the batches of steps first_step, first_step + 1, ... to the end.

    Batch s is a pure function of (examples, recipe, seed, s).

    Returns:
        A dataset of ((B, crop, crop, 3) float32 in [-1, 1], (B, classes)
        float32 label distributions), B = recipe.batch_size.
    """
    read = _reader(examples)
    preprocess = preprocessing.parse(recipe.train_preprocessing)
    num_classes = len(examples.class_names)
    num_examples = len(examples)
    augmentation = _stream(seed, _AUGMENTATION)

    def load(position):
        index = index_at(position, num_examples=num_examples, seed=seed)
        content, label = read(index)
        own = tf.random.experimental.stateless_fold_in(augmentation, position)
        image = preprocess(content, own)
        image = tf.ensure_shape(image, (recipe.crop, recipe.crop, 3))
        return image, tf.one_hot(label, num_classes)

    def mix(step, batch):
        own = tf.random.experimental.stateless_fold_in(
            _stream(seed, _MIXUP), step
        )
        return preprocessing.mixup(*batch, alpha=recipe.mixup_alpha, seed=own)

    dataset = tf.data.Dataset.range(
        first_step * recipe.batch_size, recipe.total_steps * recipe.batch_size
    )
    dataset = dataset.map(
        load, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
    )
    dataset = dataset.batch(recipe.batch_size, drop_remainder=True)
    if recipe.mixup_alpha:
        dataset = dataset.enumerate(start=first_step).map(mix)
    # One batch ahead: of 512 images at 384 pixels each is 0.9 GB.
    return dataset.prefetch(1)


def for_evaluation(
    examples: examples_lib.Examples,
    recipe: recipe_lib.Recipe,
    *,
    batch_size: int,
) -> tf.data.Dataset:
    """Returns every example once, in order, in batches of equal size.

    The last batch is filled up with repetitions whose index is -1.

    Returns:
        A dataset of ((B, crop, crop, 3) float32, (B,) int32 labels, (B,)
        int64 indices).
    """
    read = _reader(examples)
    preprocess = preprocessing.parse(recipe.eval_preprocessing)
    num_examples = len(examples)
    unused_seed = tf.zeros((2,), tf.int64)

    def load(position):
        content, label = read(tf.minimum(position, num_examples - 1))
        image = preprocess(content, unused_seed)
        image = tf.ensure_shape(image, (recipe.crop, recipe.crop, 3))
        return image, label, tf.where(position < num_examples, position, -1)

    padded = -(-num_examples // batch_size) * batch_size
    dataset = tf.data.Dataset.range(padded).map(
        load, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
    )
    return dataset.batch(batch_size, drop_remainder=True).prefetch(1)


def find_undecodable(examples: examples_lib.Examples) -> list[str]:
    """Returns the names of the first few images that TensorFlow refuses.

    Slow; for saying which file it was after a batch could not be made.
    """
    read = _reader(examples)
    found = []
    for index, name in enumerate(examples.names):
        try:
            preprocessing.decode()(read(index)[0], None)
        except tf.errors.OpError:
            found.append(name)
        if len(found) == 3:
            break
    return found
