"""The order of the data is a function of (seed, step); nothing is lost."""

import dataclasses
import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from bit_tf import data
from bit_tf import examples as examples_lib
from bit_tf import kept_images
from bit_tf import mixup
from bit_tf import ordering
from bit_tf import recipe as recipe_lib
from tests import batches as batches_lib


def make_examples(count, classes=3, side=8):
    """Images whose every pixel is their index."""
    contents = []
    for index in range(count):
        buffer = io.BytesIO()
        Image.new("RGB", (side, side), (index, index, index)).save(
            buffer, format="PNG"
        )
        contents.append(buffer.getvalue())
    return examples_lib.Examples(
        names=[str(index) for index in range(count)],
        contents=contents,
        labels=np.arange(count, dtype=np.int32) % classes,
        sizes=np.full((count, 2), side),
        class_names=tuple("abc"[:classes]),
    )


def make_noise(count):
    """Images that can be told from their mirror images."""
    rng = np.random.default_rng(0)
    contents = []
    for _ in range(count):
        buffer = io.BytesIO()
        pixels = rng.integers(0, 256, (8, 9, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(buffer, format="PNG")
        contents.append(buffer.getvalue())
    return dataclasses.replace(make_examples(count), contents=contents)


def make_recipe(**kwargs):
    return recipe_lib.Recipe(
        **{
            "name": "test",
            "total_steps": 12,
            "batch_size": 4,
            "base_lr": 0.1,
            "warmup_steps": 0,
            "decay_steps": (),
            "resize": 10,
            "crop": 8,
            **kwargs,
        }
    )


def indices(batches):
    """Recovers the indices from the pixels."""
    return [images.numpy()[:, 0, 0, 0].tolist() for images, _ in batches]


@pytest.mark.parametrize("count", [1, 2, 3, 7, 16, 100, 1000])
def test_every_epoch_is_a_permutation_of_its_own(count):
    def epoch(number):
        positions = tf.range(number * count, (number + 1) * count, 1, tf.int64)
        return list(
            ordering.index_at(positions, num_examples=count, seed=1).numpy()
        )

    first, second = epoch(0), epoch(1)
    assert sorted(first) == sorted(second) == list(range(count))
    if count > 7:
        assert first != second != list(range(count))


# The numbers and the seed are such that 4 rounds would not do.
@pytest.mark.parametrize("count", [500, 1280, 5000, 50_000])
def test_the_order_is_random_in_every_epoch(count):
    positions = tf.range(count, dtype=tf.int64)
    orders = [
        ordering.index_at(
            positions + epoch * count, num_examples=count, seed=seed
        ).numpy()
        for seed, epoch in [(0, e) for e in range(20)] + [(1, 0)]
    ]
    found = np.corrcoef([np.arange(count), *orders])
    # Standard error 1 / sqrt(count), of 231 pairs.
    assert np.abs(found - np.eye(22)).max() < 5 / count**0.5
    for one in orders:
        # Neighbours are none, and a batch is no part of a sorted set.
        assert abs(np.corrcoef(one[1:], one[:-1])[0, 1]) < 5 / count**0.5
        first = (one[: count // 2] < count / 2).mean()
        assert abs(first - 0.5) < 5 * 0.5 / count**0.5


def test_batches_cross_epochs_without_loss():
    batches = data.for_training(make_examples(6), make_recipe(), seed=3)
    seen = [index for batch in indices(batches) for index in batch]
    assert len(seen) == 48
    for epoch in range(8):
        assert sorted(seen[6 * epoch : 6 * epoch + 6]) == list(range(6))


@pytest.mark.parametrize("mixup_alpha", [0.0, 0.5])
@pytest.mark.parametrize("first", [1, 5, 11])
def test_a_run_can_begin_at_any_step(first, mixup_alpha):
    examples, recipe = make_examples(30), make_recipe(mixup_alpha=mixup_alpha)
    whole = list(data.for_training(examples, recipe, seed=3))
    part = list(data.for_training(examples, recipe, seed=3, first_step=first))
    assert len(whole) == 12
    assert len(part) == 12 - first
    for those, these in zip(whole[first:], part, strict=True):
        tf.nest.map_structure(np.testing.assert_array_equal, those, these)


def test_threads_do_not_change_the_batches():
    examples, recipe = make_examples(30), make_recipe()

    def run(threads):
        options = tf.data.Options()
        options.threading.private_threadpool_size = threads
        batches = data.for_training(examples, recipe, seed=3)
        return [x.numpy() for x, _ in batches.with_options(options)]

    for a, b in zip(run(1), run(8), strict=True):
        np.testing.assert_array_equal(a, b)


def test_seeds_order_and_augment_differently():
    examples = make_examples(30)
    assert indices(
        data.for_training(examples, make_recipe(), seed=1)
    ) != indices(data.for_training(examples, make_recipe(), seed=2))


@pytest.mark.parametrize("changes", [{}, {"mixup_alpha": 0.3}])
def test_images_kept_in_memory_give_the_same_batches(changes):
    examples = make_noise(20)
    rules = make_recipe(**changes)
    shown, said = [], []
    kept = kept_images.resized(
        examples, rules, most_mb=1, progress=shown.append, log=said.append
    )
    assert kept[0].shape == (20, 10, 10, 3) and kept[0].dtype == tf.uint8
    assert shown == [20] and said == ["images are kept in memory: 0 MB"]
    for first in (0, 3):
        read, remembered = (
            data.for_training(
                examples, rules, seed=1, first_step=first, kept=how
            )
            for how in (None, kept)
        )
        for those, these in zip(read, remembered, strict=True):
            tf.nest.map_structure(np.testing.assert_array_equal, those, these)


@pytest.mark.parametrize(
    ("changes", "most_mb", "said"),
    [
        ({"resize": 200}, 1, "they take 2 MB, more than 1"),
        ({"total_steps": 9}, 1, "most are used once"),
        (
            {
                "train_template": recipe_lib.INCEPTION_TRAIN,
                "min_crop_area": 5,
            },
            1,
            "is drawn before",
        ),
    ],
)
def test_why_images_are_not_kept_is_told(changes, most_mb, said):
    lines = []
    kept = kept_images.resized(
        make_examples(20),
        make_recipe(**changes),
        most_mb=most_mb,
        log=lines.append,
    )
    assert kept is None and len(lines) == 1
    assert lines[0].startswith("images are not kept in memory: ")
    assert said in lines[0]


def test_neighbours_are_augmented_independently():
    # Left or right, of images one after the other and of operations.
    seeds = ordering.seeds(0, tf.range(2000, dtype=tf.int64))
    drawn = np.array(
        [
            tf.vectorized_map(
                lambda seed: tf.random.stateless_uniform((), seed),
                tf.add(seeds, (operation, 0)),
            )
            for operation in range(3)
        ]
    )
    found = np.corrcoef(np.concatenate([drawn[:, 1:], drawn[:, :-1]]))
    assert np.abs(found - np.eye(6)).max() < 5 / 2000**0.5
    assert np.abs(drawn.mean(axis=1) - 0.5).max() < 5 / (12 * 2000) ** 0.5


def test_an_image_is_augmented_anew_every_time():
    (images, _), *_ = data.for_training(make_noise(1), make_recipe(), seed=0)
    assert len({image.tobytes() for image in images.numpy()}) > 1


def test_shapes_are_static():
    # What a TPU needs, and XLA anywhere.
    images, labels = data.for_training(
        make_examples(6), make_recipe(mixup_alpha=0.1), seed=0
    ).element_spec
    assert images.images.shape == images.partners.shape == (4, 8, 8, 3)
    assert images.weights.shape == (4,)
    assert labels.shape == (4, 3)


def test_labels_belong_to_their_images():
    for images, labels in data.for_training(
        make_examples(30), make_recipe(), seed=0
    ):
        np.testing.assert_array_equal(
            labels.numpy().argmax(axis=1), images.numpy()[:, 0, 0, 0] % 3
        )


def test_images_are_bytes_until_they_are_blended():
    examples = make_examples(30)
    plain, blended = (
        next(
            iter(
                data.for_training(
                    examples, make_recipe(mixup_alpha=alpha), seed=0
                )
            )
        )[0]
        for alpha in (0.0, 1.0)
    )
    assert {x.dtype for x in (plain, *blended[:2])} == {tf.uint8}
    blended = mixup.blended(blended)
    assert (np.abs(blended) <= 1).all()
    # All pixels of an image are its index, so the partner can be seen.
    index = plain.numpy()[:, 0, 0, 0] / 127.5 - 1
    weight = [
        (a - before) / (own - before)
        for a, own, before in zip(
            blended.numpy()[:, 0, 0, 0], index, np.roll(index, 1), strict=True
        )
    ]
    np.testing.assert_allclose(weight, weight[0], rtol=1e-3)


@pytest.mark.parametrize("count", [1, 4, 5, 11])
@pytest.mark.parametrize("batch_size", [1, 4, 64])
def test_evaluation_sees_every_example_once(count, batch_size):
    batches = batches_lib.for_evaluation(
        make_examples(count), make_recipe(), batch_size=batch_size
    )
    seen = []
    for images, labels, index in batches:
        assert images.shape == (batch_size, 8, 8, 3)
        real = index.numpy() >= 0
        values = np.rint((images.numpy()[:, 0, 0, 0] + 1) * 127.5)
        np.testing.assert_array_equal(values[real], index.numpy()[real])
        np.testing.assert_array_equal(
            labels.numpy()[real], np.eye(3)[index.numpy()[real] % 3]
        )
        seen += index.numpy()[real].tolist()
    assert seen == list(range(count))


@pytest.mark.parametrize("count", [1, 128, 200])
def test_graphs_hold_no_images(count):
    image = np.random.default_rng(0).bytes(100_000)
    examples = dataclasses.replace(
        make_examples(count), contents=[image] * count
    )
    read = tf.function(data.reader(examples))
    graph = read.get_concrete_function(tf.TensorSpec((), tf.int64)).graph
    assert graph.as_graph_def().ByteSize() < len(image)


def test_what_tensorflow_cannot_decode_is_named():
    examples = make_examples(4)
    broken = list(examples.contents)
    broken[2] = b"not an image"
    examples = dataclasses.replace(examples, contents=broken)
    assert data.find_undecodable(examples) == ["2"]


def test_nothing_is_tuned_while_it_is_read():
    # Or whoever is done waits for the thread that tunes.
    examples = make_examples(4)
    for dataset in (
        data.for_training(examples, make_recipe(), seed=0),
        data.for_evaluation(
            examples, preprocessing="decode|resize(8)", crop=8, batch_size=2
        ),
    ):
        assert dataset.options().autotune.enabled is False
