"""Examples + Recipe -> tf.data: batches that depend on (seed, step) alone."""

import dataclasses

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


@dataclasses.dataclass(frozen=True)
class Share:
    """The part of every batch that one of several hosts prepares.

    Args:
        index: of the host, from 0.
        count: how many hosts there are; divides the batch.
    """

    index: int = 0
    count: int = 1


ALL = Share()


def for_training(
    examples: examples_lib.Examples,
    recipe: recipe_lib.Recipe,
    *,
    seed: int,
    first_step: int = 0,
    skipped: int = 0,
    share: Share = ALL,
) -> tf.data.Dataset:
    """Returns the batches of steps first_step, first_step + 1, ... to the end.

    The batch of step s is a pure function of (examples, recipe, seed,
    s + skipped), and what several hosts make of it, one after the other, is
    that batch, mixup included.

    Args:
        examples: what to train on.
        recipe: its batch is the global one.
        seed: the run's seed.
        first_step: updates made before.
        skipped: batches that the run has passed over.
        share: which part of each batch to prepare.

    Returns:
        A dataset of ((b, crop, crop, 3) float32 in [-1, 1], (b, classes)
        float32 label distributions), b = recipe.batch_size / share.count.
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

    size = recipe.batch_size // share.count
    # The partner of a share's first example is another host's last.
    has_previous = bool(recipe.mixup_alpha) and share.count > 1
    loaded = tf.range(-int(has_previous), size, dtype=tf.int64)

    def positions(batch):
        within = (share.index * size + loaded) % recipe.batch_size
        return tf.data.Dataset.from_tensor_slices(
            batch * recipe.batch_size + within
        )

    def mix(batch, contents):
        own = tf.random.experimental.stateless_fold_in(
            _stream(seed, _MIXUP), batch
        )
        return preprocessing.mixup(
            *contents,
            alpha=recipe.mixup_alpha,
            seed=own,
            has_previous=has_previous,
        )

    first = first_step + skipped
    dataset = tf.data.Dataset.range(first, recipe.total_steps + skipped)
    dataset = dataset.flat_map(positions).map(
        load, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
    )
    dataset = dataset.batch(size + int(has_previous), drop_remainder=True)
    if recipe.mixup_alpha:
        dataset = dataset.enumerate(start=first).map(mix)
    # One batch ahead: of 512 images at 384 pixels each is 0.9 GB.
    return dataset.prefetch(1)


def for_evaluation(
    examples: examples_lib.Examples,
    recipe: recipe_lib.Recipe,
    *,
    batch_size: int,
    share: Share = ALL,
) -> tf.data.Dataset:
    """Returns every example once, in order, in batches of equal size.

    The last batch is filled up with repetitions whose index is -1.

    Args:
        examples: what to evaluate on.
        recipe: for its preprocessing.
        batch_size: over all hosts.
        share: which part of each batch to prepare.

    Returns:
        A dataset of ((b, crop, crop, 3) float32, (b,) int32 labels, (b,)
        int64 indices), b = batch_size / share.count.
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

    size = batch_size // share.count
    own = share.index * size + tf.range(size, dtype=tf.int64)
    dataset = (
        tf.data.Dataset.range(-(-num_examples // batch_size))
        .flat_map(
            lambda batch: tf.data.Dataset.from_tensor_slices(
                batch * batch_size + own
            )
        )
        .map(load, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    )
    return dataset.batch(size, drop_remainder=True).prefetch(1)


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
