"""An update is the same however it is divided, and never half made."""

import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from bit_tf import ahead
from bit_tf import distribution
from bit_tf import losses
from bit_tf import preprocessing
from bit_tf import update
from tests import cluster_ports
from tests import steps
from tests.conftest import ROOT

CPUS = ("CPU:0", "CPU:1", "CPU:2", "CPU:3")


def devices(count):
    if count == 1:
        return distribution.build("one_device")
    return distribution.build("mirrored", CPUS[:count])


@pytest.fixture(scope="module")
def one():
    return steps.train(
        devices(1), rules=steps.recipe(**steps.EVERYTHING), count=20
    )


@pytest.fixture(scope="module")
def first_gradients():
    return steps.train(
        devices(1), rules=steps.first_step(), count=1, dtype=None, head=0.01
    )


def assert_same_twenty_steps(one, two):
    # The float64 policy: the order of sums is all that differs.
    assert steps.largest_difference(one, two, "losses") < 1e-10
    np.testing.assert_array_equal(one["correct"], two["correct"])
    for kind in ("weight", "average"):
        assert steps.largest_difference(one, two, kind) < 1e-10
    # Which are not scaled by the rate.
    assert steps.largest_difference(one, two, "velocity") < 1e-8


def assert_same_gradients(one, two):
    for key in one:
        if key.startswith("velocity"):
            norm = np.linalg.norm(one[key])
            assert norm > 0
            assert np.linalg.norm(one[key] - two[key]) <= 1e-5 * norm, key


@pytest.mark.parametrize(
    ("count", "kwargs"),
    [
        (1, {"parts": 4}),
        (2, {}),
        pytest.param(
            1,
            {"jit_compile": True, "parts": 2, "remat": True},
            marks=pytest.mark.slow,
        ),
        pytest.param(4, {"parts": 2}, marks=pytest.mark.slow),
        pytest.param(
            2, {"jit_compile": True, "remat": True}, marks=pytest.mark.thorough
        ),
    ],
    ids=str,
)
def test_however_divided_twenty_steps_are_the_same(one, count, kwargs):
    strategy = devices(count)
    assert strategy.num_replicas_in_sync == count
    rules = steps.recipe(**steps.EVERYTHING)
    assert_same_twenty_steps(
        one, steps.train(strategy, rules=rules, count=20, **kwargs)
    )


@pytest.mark.parametrize(
    ("count", "kwargs", "asked"),
    [
        (1, {}, ["/job:localhost/replica:0/task:0/device:CPU:0"]),
        (1, {"parts": 2}, ["/job:localhost/replica:0/task:0/device:CPU:0"]),
        # What was compiled ahead would not be found, or not be asked for.
        (2, {}, []),
        (1, {"jit_compile": True}, []),
    ],
    ids=str,
)
def test_loops_are_compiled_ahead_for_one_device(
    monkeypatch, count, kwargs, asked
):
    found = []

    def while_traced(device):
        found.append(device)
        raise KeyboardInterrupt

    monkeypatch.setattr(ahead, "while_traced", while_traced)
    monkeypatch.setattr(losses, "per_example", interrupted)
    with pytest.raises(KeyboardInterrupt):
        steps.train(devices(count), rules=steps.recipe(), count=1, **kwargs)
    assert found == asked


def test_memory_is_given_back_once_and_before_the_first_update(monkeypatch):
    rules = steps.recipe()
    model, optimizer = steps.build(devices(1), rules)
    traced, given_back = [], []
    monkeypatch.setattr(
        *(update, "_give_memory_back"),
        lambda: given_back.append((len(traced), int(optimizer.iterations))),
    )
    per_example = losses.per_example
    monkeypatch.setattr(
        *(losses, "per_example"),
        lambda *args: traced.append(args) or per_example(*args),
    )
    several = update.compiled(
        model, optimizer, batch_size=rules.batch_size, strategy=devices(1)
    )
    iterator = steps.batches(devices(1), rules)
    assert several(iterator, 2).loss > several(iterator, 1).loss > 0
    assert given_back == [(1, 0)]
    assert int(optimizer.iterations) == 3


def interrupted(*_):
    raise KeyboardInterrupt


def test_the_twenty_steps_move_everything(one):
    start, _ = steps.build(devices(1), steps.recipe(), dtype="float64")
    for v in start.trainable_variables:
        value = keras.ops.convert_to_numpy(v)
        assert np.abs(one[f"weight/{v.path}"] - value).max() > 1e-5
        # The average follows behind.
        behind = np.abs(one[f"average/{v.path}"] - value).max()
        assert behind > 0
    assert len(set(one["losses"])) == 20


@pytest.mark.parametrize("count", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_first_gradients_in_float32_agree(first_gradients, count):
    found = steps.train(
        devices(count), rules=steps.first_step(), count=1, dtype=None, head=0.01
    )
    assert_same_gradients(first_gradients, found)


@pytest.mark.slow
def test_two_processes_are_two_devices(one, first_gradients, tmp_path):
    workers = [f"127.0.0.1:{port}" for port in cluster_ports.free(2)]
    processes = [
        subprocess.Popen(
            [
                *(sys.executable, "-m", "tests.steps"),
                *(str(tmp_path / f"{index}.npz"), str(index), *workers),
            ],
            cwd=ROOT,
            stderr=subprocess.PIPE,
        )
        for index in range(2)
    ]
    try:
        for process in processes:
            _, errors = process.communicate(timeout=240)
            assert process.returncode == 0, errors.decode()[-3000:]
    finally:
        for process in processes:
            process.kill()
    for index in range(2):
        with np.load(tmp_path / f"{index}.npz") as stored:
            found = {key: stored[key] for key in stored.files}
        for name, compare, wanted in (
            ("float64", assert_same_twenty_steps, one),
            ("float32", assert_same_gradients, first_gradients),
        ):
            compare(
                wanted,
                {
                    key.removeprefix(f"{name}:"): value
                    for key, value in found.items()
                    if key.startswith(f"{name}:")
                },
            )


@pytest.mark.parametrize("names", [("root_block", "block1"), ("all",)])
def test_what_is_frozen_stays(names):
    rules = steps.recipe(freeze=names)
    start, optimizer = steps.build(devices(1), rules)
    assert len(optimizer.velocities) == len(start.trainable_variables)
    before = {v.path: keras.ops.convert_to_numpy(v) for v in start.variables}
    run = update.compiled(start, optimizer, batch_size=8, strategy=devices(1))
    run(steps.batches(devices(1), rules), 3)
    moved = {
        v.path.split("/")[1]
        for v in start.variables
        if (keras.ops.convert_to_numpy(v) != before[v.path]).any()
    }
    everything = {v.path.split("/")[1] for v in start.variables}
    kept = everything - {"head"} if names == ("all",) else set(names)
    assert moved == everything - kept


def test_what_is_dropped_depends_on_seed_and_update_alone():
    model, _ = steps.build(devices(1), steps.recipe())

    def kept(seed, first=0, size=8):
        return update._kept(
            model, rate=0.25, seed=seed, batch_size=8, first=first, size=size
        ).numpy()

    whole = kept((3, 7))
    assert set(np.unique(whole)) == {np.float32(0), np.float32(1 / 0.75)}
    # Binomial(8 * 1024, 1/4): five deviations.
    assert abs((whole == 0).mean() - 0.25) < 0.025
    np.testing.assert_array_equal(whole, kept((3, 7)))
    np.testing.assert_array_equal(whole[4:], kept((3, 7), 4, 4))
    assert (whole != kept((3, 8))).any() and (whole != kept((4, 7))).any()
    # Without rate there is nothing to multiply by.
    assert update._kept(
        model, rate=0, seed=(0, 0), batch_size=8, first=0, size=8
    ).shape == (8, 0)


def test_several_steps_a_call_are_single_ones():
    rules = steps.recipe()
    found = []
    for calls in ([1] * 6, [4, 2]):
        model, optimizer = steps.build(devices(1), rules)
        run = update.compiled(
            model, optimizer, batch_size=8, strategy=devices(1)
        )
        iterator = steps.batches(devices(1), rules)
        reports = [run(iterator, count) for count in calls]
        found.append(
            (
                [keras.ops.convert_to_numpy(v) for v in model.variables],
                sum(r.correct for r in reports),
                sum(r.loss for r in reports),
            )
        )
    for a, b in zip(found[0][0], found[1][0], strict=True):
        np.testing.assert_array_equal(a, b)
    assert found[0][1] == found[1][1]
    assert found[0][2] == pytest.approx(found[1][2], rel=1e-12)


def test_waiting_for_batches_is_counted():
    model, optimizer = steps.build(devices(1), steps.recipe())
    run = update.compiled(model, optimizer, batch_size=2, strategy=devices(1))
    seconds = 0.2

    def batch(_):
        started = tf.timestamp()
        ended = tf.while_loop(
            lambda now: now < started + seconds,
            lambda now: tf.timestamp(),
            [started],
        )
        images = tf.zeros((2, 32, 32, 3)) + tf.cast(0 * ended[0], tf.float32)
        return images, tf.eye(2, 3)

    iterator = iter(tf.data.Dataset.range(3).map(batch))
    assert run(iterator, 3).waited > seconds


ON_ONE_CORE = """
import time
import tensorflow as tf
from bit_tf import distribution, update
from tests import steps

rules, one = steps.recipe(), distribution.build("one_device")
model, optimizer = steps.build(one, rules)
run = update.compiled(model, optimizer, batch_size=2, strategy=one)
batch = (tf.zeros((2, 32, 32, 3)), tf.eye(2, 3))
iterator = iter(tf.data.Dataset.from_tensors(batch).cache().repeat())
run(iterator, 2)
began = time.monotonic()
print(run(iterator, 30).waited / (time.monotonic() - began))
"""


def test_on_one_core_what_is_computed_is_not_waited_for():
    done = subprocess.run(
        [sys.executable, "-c", ON_ONE_CORE],
        env=os.environ
        | {"TF_NUM_INTEROP_THREADS": "1", "TF_NUM_INTRAOP_THREADS": "1"},
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    # 0.02 alone, up to 0.2 beside other work, 0.84 if it is waited for.
    assert float(done.stdout) < 0.5


def clipped(count, clip_norm, parts=1):
    """The velocities after one step, and the norm of all of them."""
    rules = steps.recipe(warmup_steps=0, clip_norm=clip_norm)
    found = steps.train(
        devices(count), rules=rules, count=1, parts=parts, head=0.1
    )
    found = {k: v for k, v in found.items() if k.startswith("velocity")}
    return found, np.sqrt(sum((v**2).sum() for v in found.values()))


def test_the_gradient_of_the_whole_batch_is_clipped():
    free, norm = clipped(1, 0.0)
    assert norm > 0.1
    short, found = clipped(2, norm / 4, parts=2)
    assert found == pytest.approx(norm / 4, rel=1e-9)
    for key, value in free.items():
        np.testing.assert_allclose(short[key], value / 4, rtol=0, atol=1e-9)
    # One that is short enough stays as it is.
    _, found = clipped(1, norm * 2)
    assert found == pytest.approx(norm, rel=1e-9)


@pytest.mark.parametrize(("count", "where"), [(1, "gradient"), (2, "images")])
def test_an_update_that_is_not_finite_changes_nothing(count, where):
    strategy = devices(count)
    rules = steps.recipe(
        weight_decay=0.1, weight_decay_kind="decoupled", ema_decay=0.5
    )
    model, optimizer = steps.build(strategy, rules)
    run = update.compiled(model, optimizer, batch_size=8, strategy=strategy)

    def state():
        return [
            keras.ops.convert_to_numpy(v)
            for v in (
                *model.trainable_variables,
                *optimizer.velocities,
                *optimizer.averages,
            )
        ]

    first = steps.batches(strategy, rules)
    for _ in range(3):
        assert run(first, 1).held == 0
    before = state()
    # One image of one replica is spoiled.
    spoiled = np.zeros((8, 32, 32, 3), np.float32)
    spoiled[0] = np.nan if where == "images" else 3e38
    labels = np.eye(3, dtype=np.float32)[np.zeros(8, int)]
    data = tf.data.Dataset.from_tensors((spoiled, labels)).repeat()
    report = run(iter(distribution.distribute(strategy, lambda *_: data)), 1)
    assert report.held == 1
    for a, b in zip(before, state(), strict=True):
        np.testing.assert_array_equal(a, b)
    # And training goes on.
    assert run(first, 1).held == 0
    assert any((a != b).any() for a, b in zip(before, state(), strict=True))


def test_float16_needs_its_loss_scale_and_gets_its_gradients():
    found = {}
    start = steps.build(devices(1), steps.first_step())[0].get_weights()
    # The head's kernel: gradients of 1e-9, which float16 does not have.
    start[-2] = np.random.default_rng(0).normal(size=start[-2].shape) * 1e-7
    for dtype, scales in (
        ("float64", (1.0,)),
        ("mixed_float16", (2.0**20, 1.0)),
    ):
        rules = steps.first_step()
        model, optimizer = steps.build(devices(1), rules, dtype=dtype)
        run = update.compiled(
            model,
            optimizer,
            batch_size=8,
            strategy=devices(1),
            loss_scaling=len(scales) > 1,
        )
        for scale in scales:
            model.set_weights(start)
            for v in optimizer.velocities:
                v.assign(np.zeros(v.shape))
            run(steps.batches(devices(1), rules), 1, loss_scale=scale)
            found[scale, dtype] = [
                keras.ops.convert_to_numpy(v) for v in optimizer.velocities
            ]

    def error(scale):
        pairs = zip(
            found[scale, "mixed_float16"], found[1.0, "float64"], strict=True
        )
        return np.median(
            [np.linalg.norm(a - b) / np.linalg.norm(b) for a, b in pairs]
        )

    assert error(2.0**20) < 0.2
    assert error(1.0) > 0.5


@pytest.mark.parametrize("parts", [1, 2])
def test_bytes_count_as_the_numbers_that_they_stand_for(parts):
    rules, strategy = steps.first_step(), devices(1)
    images, labels = next(iter(steps.batches(strategy, rules)))
    assert images.dtype == tf.uint8
    found = []
    for given in (images, preprocessing.in_range(images)):
        model, optimizer = steps.build(strategy, rules)
        run = update.compiled(
            model, optimizer, batch_size=8, strategy=strategy, parts=parts
        )
        batches = tf.data.Dataset.from_tensors((given, labels)).repeat()
        reports = [run(iter(batches), 1) for _ in range(2)]
        found.append([report.loss for report in reports])
    assert found[0] == found[1]
    assert found[0][0] != found[0][1]


def test_a_worker_that_was_asked_to_end_is_heard():
    strategy = devices(2)
    rules = steps.recipe()
    model, optimizer = steps.build(strategy, rules)
    run = update.compiled(model, optimizer, batch_size=8, strategy=strategy)
    iterator = steps.batches(strategy, rules)
    assert run(iterator, 2).asked == 0
    assert run(iterator, 1, asked=True).asked > 0


@pytest.mark.slow
@pytest.mark.parametrize(("count", "parts"), [(1, 1), (2, 2)])
def test_the_loss_scale_follows_each_update_of_a_call(
    monkeypatch, count, parts
):
    monkeypatch.setattr(update, "LOSS_SCALE_STEPS", 3)
    monkeypatch.setattr(update, "MAX_LOSS_SCALE", 16.0)
    rules, strategy = steps.first_step(), devices(count)
    model, optimizer = steps.build(strategy, rules, dtype="mixed_float16")
    run = update.compiled(
        model,
        optimizer,
        batch_size=8,
        strategy=strategy,
        parts=parts,
        loss_scaling=True,
    )
    images, labels = next(iter(steps.batches(devices(1), rules)))
    good = preprocessing.in_range(images), labels
    bad = (tf.fill(good[0].shape, np.float32("nan")), good[1])

    def data(*, are_good):
        pairs = [good if is_good else bad for is_good in are_good]
        images, labels = (tf.stack(x) for x in zip(*pairs, strict=True))
        data = tf.data.Dataset.from_tensor_slices((images, labels))
        return iter(distribution.distribute(strategy, lambda *_: data))

    def after(*are_good, scale, steady=0):
        report = run(
            data(are_good=are_good),
            len(are_good),
            loss_scale=scale,
            steady_steps=steady,
        )
        return report.loss_scale, report.steady_steps, report.held

    assert after(1, 1, scale=8.0) == (8.0, 2, 0)
    assert after(1, scale=8.0, steady=2) == (16.0, 0, 0)
    assert after(1, 1, 1, 1, scale=16.0) == (16.0, 1, 0)
    assert after(0, 1, 0, 1, scale=8.0, steady=2) == (2.0, 1, 0)
    # Of three that fail the third had no scale left to lower.
    assert after(0, 0, 0, 1, scale=4.0) == (1.0, 1, 1)
