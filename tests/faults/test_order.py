"""The data of a step depend on nothing but the seed and the step."""

import numpy as np
import tensorflow as tf

from bit_tf import data
from bit_tf import ordering
from tests import test_data


def images(dataset):
    return [batch.numpy() for batch, _ in dataset]


def test_the_order_of_a_seed_is_written_down():
    """A run that is continued by another version sees the same images."""
    order = ordering.index_at(
        tf.range(20, dtype=tf.int64), num_examples=10, seed=5
    )
    np.testing.assert_array_equal(
        order,
        [*(2, 3, 8, 1, 9, 4, 6, 5, 0, 7), *(7, 3, 1, 2, 6, 0, 8, 9, 4, 5)],
    )
    np.testing.assert_array_equal(
        ordering.stream(5, ordering.MIXUP), [6623233893812660943, 2]
    )
    np.testing.assert_array_equal(
        ordering.seeds(5, tf.constant([0, 7], tf.int64)),
        [[6623233893812660943, 0], [6623233893812660943, 7]],
    )


def test_data_does_not_depend_on_who_reads_it_and_when(campaign, count, rng):
    examples = test_data.make_noise(70)
    rules = test_data.make_recipe(total_steps=60, batch_size=8, mixup_alpha=0.0)
    whole = images(data.for_training(examples, rules, seed=4))
    demanded = "the same bytes; every example once an epoch"
    with campaign("R6 order cut, shared, threads", demanded) as row:
        for cut in rng.choice(60, count(5, 50), replace=False):
            found = images(
                data.for_training(examples, rules, seed=4, first_step=int(cut))
            )
            row.check(
                all(map(np.array_equal, found, whole[cut:])), f"cut at {cut}"
            )
        for threads in (1, 4, 16):
            options = tf.data.Options()
            options.threading.private_threadpool_size = threads
            found = images(
                data.for_training(examples, rules, seed=4).with_options(options)
            )
            row.check(
                all(map(np.array_equal, found, whole)), f"{threads} threads"
            )
        for hosts in (2, 4, 8):
            parts = [
                images(
                    data.for_training(
                        examples, rules, seed=4, share=data.Share(host, hosts)
                    )
                )
                for host in range(hosts)
            ]
            joined = [
                np.concatenate(batch) for batch in zip(*parts, strict=True)
            ]
            row.check(all(map(np.array_equal, joined, whole)), f"{hosts} hosts")
        numbered = test_data.make_examples(70)
        seen = np.concatenate(
            test_data.indices(data.for_training(numbered, rules, seed=4))
        )
        for epoch in range(len(seen) // 70):
            once = sorted(seen[epoch * 70 : epoch * 70 + 70]) == list(range(70))
            row.check(once, f"epoch {epoch}")
