"""Examples + Recipe -> tf.data: batches that depend on (seed, step) alone."""

import dataclasses

import tensorflow as tf

from bit_tf import examples as examples_lib
from bit_tf import image_file
from bit_tf import mapping
from bit_tf import mixup
from bit_tf import ordering
from bit_tf import preprocessing as preprocessing_lib
from bit_tf import recipe as recipe_lib
from bit_tf import records

# A captured tensor of no more elements becomes a constant of the graph.
_WRITTEN_OUT = 128


def reader(examples: examples_lib.Images):
    """Returns a function of an item: (encoded image, (outputs,) targets).

    An item is an index, or a protocol buffer of a set in files. Targets are 1
    for each label, or the one number.
    """
    num_classes = len(examples.class_names)
    is_number = getattr(examples, "is_number", False)
    if isinstance(examples, records.RecordSet):
        raw = examples.parse
    else:
        contents = list(examples.contents)
        if examples.in_memory:
            # Or TensorFlow would write them into every graph that uses them.
            contents += [b""] * (_WRITTEN_OUT + 1 - len(contents))
        contents = tf.constant(contents)
        labels = tf.constant(examples.labels)
        read_content = _file_reader(examples)

        def raw(index):
            return read_content(contents[index], index), labels[index]

    def read(item):
        content, label = raw(item)
        if is_number:
            return content, tf.reshape(label, (1,))
        # One label or several, filled up with -1, which is no class.
        one_hot = tf.one_hot(tf.reshape(label, (-1,)), num_classes)
        return content, tf.reduce_max(one_hot, axis=0)

    return read


def _file_reader(examples: examples_lib.Examples):
    """Returns a function of (content, index): the encoded image."""
    if examples.in_memory:
        return lambda content, index: content
    if examples.converted is None or not examples.converted.any():
        return lambda content, index: tf.io.read_file(content)
    converted = tf.constant(examples.converted)

    def convert(path):
        return image_file.read(path.decode(), apply_exif=examples.apply_exif)

    def with_pillow(content):
        found = tf.numpy_function(convert, [content], tf.string)
        return tf.ensure_shape(found, ())

    return lambda content, index: tf.cond(
        converted[index],
        lambda: with_pillow(content),
        lambda: tf.io.read_file(content),
    )


def items(
    examples: examples_lib.Images, indexed: tf.data.Dataset
) -> tf.data.Dataset:
    """Turns (seeds or positions, indices) into (the same, items).

    Several in every element; of items see `reader`.
    """
    if not isinstance(examples, records.Records):
        return indexed
    # A call of Python is worth more than one example.
    return mapping.on_every_core(
        indexed.rebatch(records.READ_BATCH),
        lambda what, index: (what, examples.read_in_graph(index)),
    )


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
    examples: examples_lib.Images,
    recipe: recipe_lib.Recipe,
    *,
    seed: int,
    first_step: int = 0,
    skipped: int = 0,
    share: Share = ALL,
    kept: tuple[tf.Tensor, tf.Tensor] | None = None,
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
        kept: of the same examples and recipe, see `kept_images.resized`.

    Returns:
        A dataset of ((b, crop, crop, 3) uint8 images, or with mixup
        `mixup.Pairs` of them, see `mixup.blended`; (b, outputs) float32 label
        distributions, or standardised numbers), b = recipe.batch_size /
        share.count.
    """
    resize, augment, _ = preprocessing_lib.parse_to_uint8(
        recipe.train_preprocessing
    )
    read = reader(examples) if kept is None else None
    num_examples, batch_size = len(examples), recipe.batch_size
    size = batch_size // share.count
    # The partner of a share's first example is another host's last.
    has_previous = bool(recipe.mixup_alpha) and share.count > 1
    first = first_step + skipped
    last = recipe.total_steps + skipped
    within = share.index * size + tf.range(
        -int(has_previous), size, dtype=tf.int64
    )
    within %= batch_size

    def load(own_seed, item):
        if kept is None:
            content, targets = read(item)
            image = resize(content, own_seed)
        else:
            image, targets = (values[item] for values in kept)
        image = augment(image, own_seed)
        image = tf.ensure_shape(image, (recipe.crop, recipe.crop, 3))
        return image, learnt(targets)

    def learnt(targets):
        """Returns what is to be learnt of what is said of an image."""
        targets = (targets - recipe.target_mean) / recipe.target_scale
        if recipe.label_smoothing:
            # Of a yes or no per class there are two classes.
            classes = 2 if recipe.loss == "sigmoid" else targets.shape[0]
            targets *= 1 - recipe.label_smoothing
            targets += recipe.label_smoothing / classes
        return targets

    def mix(batch, contents):
        images, labels = contents
        own = tf.random.experimental.stateless_fold_in(
            ordering.stream(seed, ordering.MIXUP), batch
        )
        return mixup.paired(
            images,
            labels,
            alpha=recipe.mixup_alpha,
            seed=own,
            has_previous=has_previous,
        )

    if isinstance(examples, records.Stream):
        # Every host reads all and keeps its share, still encoded.
        chosen = (
            examples.serialized(
                ordering.stream(seed, ordering.ORDER), first * batch_size
            )
            .batch(batch_size, drop_remainder=True)
            .take(last - first)
            .enumerate(first)
            .map(
                lambda batch, rows: (
                    ordering.seeds(seed, batch * batch_size + within),
                    tf.gather(rows, within),
                )
            )
        )
    else:
        positions = tf.data.Dataset.range(first, last).map(
            lambda batch: batch * batch_size + within
        )
        indexed = positions.map(
            lambda those: (
                ordering.seeds(seed, those),
                ordering.index_at(those, num_examples=num_examples, seed=seed),
            )
        )
        chosen = indexed if kept is not None else items(examples, indexed)
    dataset = mapping.batches(
        chosen, load, size=size + int(has_previous), side=recipe.crop
    )
    if recipe.mixup_alpha:
        dataset = dataset.enumerate(start=first).map(mix)
    # One batch ahead: with mixup, 512 images of 384 pixels have 0.5 GB.
    return mapping.untuned(dataset.prefetch(1))


def for_evaluation(
    examples: examples_lib.Images,
    *,
    preprocessing: str,
    crop: int,
    batch_size: int,
    share: Share = ALL,
) -> tf.data.Dataset:
    """Returns every example once, in order, in batches of equal size.

    The last batch is filled up with repetitions whose index is -1.

    Args:
        examples: what to evaluate on.
        preprocessing: see `preprocessing.parse`.
        crop: side of the images that it makes, pixels.
        batch_size: over all hosts.
        share: which part of each batch to prepare.

    Returns:
        A dataset of ((b, crop, crop, 3) float32, (b, outputs) float32, 1 for
        each label of an image, or its number, (b,) int64 indices), b =
        batch_size / share.count.
    """
    if isinstance(examples, records.Stream):
        raise ValueError(
            f"{examples.name}, split {examples.split!r} can only be read in "
            "order, and not evaluated on: prepare it with "
            "--file_format=array_record, or take a part of it."
        )
    read = reader(examples)
    preprocess = preprocessing_lib.parse(preprocessing)
    num_examples = len(examples)
    unused_seed = tf.zeros((2,), tf.int64)
    size = batch_size // share.count
    own = share.index * size + tf.range(size, dtype=tf.int64)

    def load(position, item):
        content, targets = read(item)
        image = preprocess(content, unused_seed)
        image = tf.ensure_shape(image, (crop, crop, 3))
        return image, targets, tf.where(position < num_examples, position, -1)

    positions = tf.data.Dataset.range(-(-num_examples // batch_size)).map(
        lambda batch: batch * batch_size + own
    )
    indexed = positions.map(
        lambda those: (those, tf.minimum(those, num_examples - 1))
    )
    dataset = mapping.batches(
        items(examples, indexed), load, size=size, side=crop
    )
    return mapping.untuned(dataset.prefetch(1))


def find_undecodable(examples: examples_lib.Images) -> list[str]:
    """Returns the names of the first few images that TensorFlow refuses.

    Slow; for saying which file it was after a batch could not be made. A set
    that can only be read in order has no names to tell.
    """
    if isinstance(examples, records.Stream):
        return []
    decode = preprocessing_lib.decode()
    found = []
    for index, name in enumerate(examples.names):
        content = examples.contents[index]
        try:
            if isinstance(content, str):
                content = image_file.read(content)
            decode(content, None)
        except (tf.errors.OpError, OSError, ValueError):
            found.append(name)
        if len(found) == 3:
            break
    return found
