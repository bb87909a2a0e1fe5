"""Sets in files: any example where that can be, an honest order elsewhere."""

import numpy as np
import pytest
import tensorflow as tf

from bit_tf import data
from bit_tf import evaluation as evaluation_lib
from bit_tf import records
from bit_tf import sources
from bit_tf import subsets
from bit_tf import tasks
from bit_tf import tfds_sets
from tests import batches as batches_lib
from tests.test_data import make_recipe

COUNT = 60


def prepare(path, file_format, *, several):
    """Writes a set whose every pixel is its index, with TFDS itself.

    Example i has label i % 3, and of several labels also (i + 1) % 3 where i
    is odd.
    """
    tfds = tfds_sets.import_tfds()
    label = tfds.features.ClassLabel(names=["a", "b", "c"])

    with tfds.core.registered.skip_registration():

        class Numbers(tfds.core.GeneratorBasedBuilder):
            VERSION = tfds.core.Version("1.0.0")

            def _info(self):
                key = "labels" if several else "label"
                return self.dataset_info_from_configs(
                    features=tfds.features.FeaturesDict(
                        {
                            "image": tfds.features.Image(shape=(None, None, 3)),
                            key: tfds.features.Sequence(label)
                            if several
                            else label,
                        }
                    ),
                    supervised_keys=("image", key),
                )

            def _split_generators(self, dl_manager):
                return {
                    "train": self._examples(COUNT),
                    "test": self._examples(11),
                    # As a benchmark whose answers are kept.
                    "unlabelled": self._examples(COUNT, is_labelled=False),
                }

            def _examples(self, count, *, is_labelled=True):
                for index in range(count):
                    image = np.full((8, 8, 3), index, np.uint8)
                    first = index % 3 if is_labelled else -1
                    if several:
                        both = [max(first, 0), (first + 1) % 3]
                        yield (
                            index,
                            {"image": image, "labels": both[: 1 + index % 2]},
                        )
                    else:
                        yield index, {"image": image, "label": first}

            def _generate_examples(self):
                raise AssertionError("unused")

    Numbers(data_dir=path, file_format=file_format).download_and_prepare()
    return str(path)


@pytest.fixture(scope="module")
def load(tmp_path_factory):
    """Loads the set as records, as a stream, or in memory."""
    made = {}

    def load(kind, *, several=False, **splits):
        file_format = "array_record" if kind == "records" else "tfrecord"
        key = file_format, several
        if key not in made:
            made[key] = prepare(
                tmp_path_factory.mktemp("set"), file_format, several=several
            )
        with pytest.MonkeyPatch.context() as patch:
            if kind == "stream":
                # Between the sizes of the two splits.
                patch.setattr(tfds_sets, "MAX_BYTES_IN_MEMORY", 3_000)
            train, evaluation = sources.load(
                tasks.parse("numbers", **splits), data_dir=made[key]
            )
        kinds = {"records": records.Records, "stream": records.Stream}
        if kind in kinds:
            assert type(train) is kinds[kind]
        return train, evaluation

    return load


def positions(examples, rules, **kwargs):
    """Returns (steps, b) indices recovered from the pixels, and targets."""
    images, targets = zip(
        *data.for_training(examples, rules, seed=5, **kwargs), strict=True
    )
    return np.stack(images)[:, :, 0, 0, 0], np.stack(targets)


KINDS = ("records", "stream", "memory")


@pytest.mark.parametrize("kind", KINDS)
def test_every_epoch_has_every_example_once(kind, load):
    train, _ = load(kind)
    assert len(train) == COUNT
    found, targets = positions(train, make_recipe(total_steps=30))
    for epoch in found.reshape(2, COUNT):
        assert sorted(epoch) == list(range(COUNT))
    assert (found[:15] != found[15:]).any()
    np.testing.assert_array_equal(targets, np.eye(3)[found % 3])


@pytest.mark.parametrize("kind", KINDS)
def test_a_split_without_labels_is_refused(kind, load):
    with pytest.raises(ValueError, match="'unlabelled' has images without a"):
        load(kind, train_split="unlabelled")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("first", [1, 14, 15, 22])
def test_a_run_that_continues_sees_what_it_would_have_seen(kind, first, load):
    train, _ = load(kind)
    rules = make_recipe(total_steps=30)
    whole, _ = positions(train, rules)
    part, _ = positions(train, rules, first_step=first)
    np.testing.assert_array_equal(whole[first:], part)
    # Passing over batches is continuing later.
    shifted, _ = positions(train, rules, first_step=first, skipped=3)
    np.testing.assert_array_equal(whole[first + 3 :], shifted[:-3])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("alpha", [0.0, 0.4])
def test_what_several_hosts_prepare_is_the_batch(kind, alpha, load):
    train, _ = load(kind)
    rules = make_recipe(total_steps=20, mixup_alpha=alpha)
    whole = list(data.for_training(train, rules, seed=5))
    for hosts in (2, 4):
        parts = [
            data.for_training(
                train, rules, seed=5, share=data.Share(host, hosts)
            )
            for host in range(hosts)
        ]
        for batch, *pieces in zip(whole, *parts, strict=True):
            flat = map(tf.nest.flatten, (batch, *pieces))
            for wanted, *given in zip(*flat, strict=True):
                np.testing.assert_array_equal(wanted, np.concatenate(given))


@pytest.mark.parametrize("kind", KINDS)
def test_several_labels_are_several_ones(kind, load):
    train, evaluation = load(kind, several=True)
    assert train.is_multi_label and evaluation.is_multi_label
    found, targets = positions(train, make_recipe(total_steps=15))
    wanted = np.eye(3)[found % 3]
    wanted += np.eye(3)[(found + 1) % 3] * (found % 2)[..., None]
    np.testing.assert_array_equal(targets, wanted)


@pytest.mark.parametrize("kind", ["records", "memory"])
@pytest.mark.parametrize("several", [False, True])
def test_each_is_evaluated_once_and_any_of_its_labels_is_right(
    kind, several, load
):
    _, evaluation = load(kind, several=several)
    rules = make_recipe()

    def always_b(images):
        return tf.tile([[0.0, 1.0, -1.0]], (tf.shape(images)[0], 1))

    found = evaluation_lib.evaluator(
        always_b,
        batches=lambda host, hosts: batches_lib.for_evaluation(
            evaluation, rules, batch_size=4, share=data.Share(host, hosts)
        ),
        num_examples=11,
        class_names=evaluation.class_names,
        strategy=tf.distribute.OneDeviceStrategy("CPU:0"),
        loss_name="sigmoid" if several else "softmax",
        several_labels=several,
    )()
    # In the order of the files, which is not that of their making.
    batches = batches_lib.for_evaluation(evaluation, rules, batch_size=11)
    ((images, _, _),) = batches
    number = np.rint((images.numpy()[:, 0, 0, 0] + 1) * 127.5).astype(int)
    assert sorted(number) == list(range(11))
    first = number % 3
    # With several, 3 and 9 are a and b.
    right = (first == 1) | (several & (first == 0) & (number % 2 == 1))
    hits = found.hits > 0 if several else found.correct
    np.testing.assert_array_equal(hits, right)
    if several:
        wanted = np.eye(3, dtype=int)[first]
        second = np.eye(3, dtype=int)[(number + 1) % 3]
        wanted |= second * (number % 2)[:, None]
        np.testing.assert_array_equal(found.targets, wanted)
    else:
        np.testing.assert_array_equal(found.labels, first)
    assert found.summary()["examples"] == 11


def test_parts_of_a_split_and_few_shot_subsets_of_records(load):
    train, evaluation = load(
        "records", train_split="train[10:40]", eval_split="train[:10]"
    )
    assert (len(train), len(evaluation)) == (30, 10)
    assert train.fingerprint() != evaluation.fingerprint()
    whole, _ = load("records")
    assert train.typical_size() == (8, 8)
    labels = whole.labels
    assert np.bincount(labels).tolist() == [20, 20, 20]
    chosen = whole.subset(
        subsets.sample(
            labels, class_names=whole.class_names, examples_per_class=2, seed=1
        )
    )
    assert len(chosen) == 6 and chosen.labels.tolist() != [0] * 6
    assert sorted(chosen.labels) == [0, 0, 1, 1, 2, 2]
    assert chosen.fingerprint() != whole.fingerprint()
    found, targets = positions(chosen, make_recipe(total_steps=3))
    assert len(set(found.flat)) == 6
    np.testing.assert_array_equal(targets, np.eye(3)[found % 3])
    # For the report: names, and encoded images.
    assert whole.names[3] == "train/3" and len(whole.contents) == COUNT
    pixel = tf.io.decode_image(whole.contents[7]).numpy()[0, 0, 0]
    assert pixel % 3 == labels[7]
    with pytest.raises(IndexError):
        whole.names[COUNT]


def test_a_stream_is_not_read_in_the_order_of_its_files(load):
    train, _ = load("stream")
    assert train.typical_size() == (8, 8) and train.class_counts() is None
    rules = make_recipe(total_steps=15)
    one, _ = positions(train, rules)
    other = [
        images.numpy()[:, 0, 0, 0]
        for images, _ in data.for_training(train, rules, seed=6)
    ]
    assert (one != np.stack(other)).any()
    assert (one.flat[:] != np.sort(one.flat)).any()


def test_a_stream_cannot_be_evaluated(load, monkeypatch):
    load("stream")
    with pytest.raises(ValueError, match="array_record"):
        load("stream", eval_split="train")


def test_what_is_read_in_order_is_not_evaluated_on(load):
    train, _ = load("stream")
    with pytest.raises(ValueError, match="only be read in order"):
        batches_lib.for_evaluation(train, make_recipe(), batch_size=2)
