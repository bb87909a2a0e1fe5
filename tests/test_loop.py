"""Training: replicas agree, interruptions leave no trace, NaN stops."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from bit_tf import checkpoint
from bit_tf import data
from bit_tf import distribution
from bit_tf import estimate
from bit_tf import events
from bit_tf import hyperrule
from bit_tf import loop
from bit_tf import optimizer as optimizer_lib
from bit_tf import resnet_v2
from bit_tf import workdir as workdir_lib
from tests.test_data import make_examples
from tests.test_data import make_recipe

EXAMPLES = make_examples(20, side=40)


def recipe(**kwargs):
    return make_recipe(
        **{
            "resize": 36,
            "crop": 32,
            "batch_size": 4,
            "total_steps": 10,
            "warmup_steps": 2,
            "decay_steps": (6,),
            "base_lr": 0.05,
            "mixup_alpha": 0.2,
            **kwargs,
        }
    )


def build(strategy, rules, dtype=None):
    with strategy.scope():
        model = resnet_v2.build("R26x0.5", 3, seed=0, dtype=dtype)
        optimizer = optimizer_lib.build(rules)
        optimizer.build(model.trainable_variables)
    return model, optimizer


def train(name, dtype, micro_batch=None):
    """Ten steps; returns the weights by path."""
    rules = recipe()
    strategy = distribution.build(name)
    model, optimizer = build(strategy, rules, dtype)
    steps = loop.train_steps(
        model,
        optimizer,
        batch_size=4,
        strategy=strategy,
        micro_batch=micro_batch,
    )
    batches = data.for_training(EXAMPLES, rules, seed=0)
    iterator = iter(distribution.distribute(strategy, batches))
    for _ in range(10):
        steps(iterator, tf.constant(1, tf.int64))
    return {
        v.path: keras.ops.convert_to_numpy(v)
        for v in model.variables + optimizer.velocities
    }


@pytest.fixture(scope="module")
def one():
    return train("one_device", "float64")


@pytest.mark.parametrize(
    ("name", "micro_batch"),
    [("mirrored", None), ("one_device", 2), ("mirrored", 1)],
)
def test_devices_and_parts_add_up_to_the_same_ten_steps(one, name, micro_batch):
    assert distribution.build("mirrored").num_replicas_in_sync == 2
    two = train(name, "float64", micro_batch)
    fresh = build(distribution.build("one_device"), recipe(), "float64")[0]
    moved = 0.0
    for v in fresh.variables:
        moved = max(moved, np.abs(v.numpy() - one[v.path]).max())
    assert moved > 1e-2
    # The float64 policy: summation order is all that differs, 1e-12 seen in
    # weights; in velocities, which are not scaled by the rate, 1e-10.
    for path, value in one.items():
        allowed = 1e-10 if path.startswith("resnet/") else 1e-8
        np.testing.assert_allclose(value, two[path], rtol=0, atol=allowed)


def first_gradients(name):
    """The velocity after one step without decay is the gradient."""
    rules = recipe(warmup_steps=0, mixup_alpha=0.0)
    strategy = distribution.build(name)
    model, optimizer = build(strategy, rules)
    rng = np.random.default_rng(0)
    head = model.get_layer("head").conv.kernel
    # A zero head would stop every gradient but its own.
    head.assign(rng.normal(size=head.shape) * 0.01)
    steps = loop.train_steps(model, optimizer, batch_size=4, strategy=strategy)
    batches = data.for_training(EXAMPLES, rules, seed=0)
    steps(
        iter(distribution.distribute(strategy, batches)),
        tf.constant(1, tf.int64),
    )
    return [keras.ops.convert_to_numpy(v) for v in optimizer.velocities]


def test_first_gradients_in_float32_agree():
    for one, two in zip(
        first_gradients("one_device"), first_gradients("mirrored"), strict=True
    ):
        norm = np.linalg.norm(one)
        assert norm > 0
        assert np.linalg.norm(one - two) <= 1e-5 * norm


def clipped_step(name, clip_norm, micro_batch=None):
    """The velocities after one step, and the norm of all of them."""
    rules = recipe(warmup_steps=0, mixup_alpha=0.0)
    strategy = distribution.build(name)
    model, optimizer = build(strategy, rules, "float64")
    steps = loop.train_steps(
        model,
        optimizer,
        batch_size=4,
        strategy=strategy,
        micro_batch=micro_batch,
        clip_norm=clip_norm,
    )
    batches = data.for_training(EXAMPLES, rules, seed=0)
    steps(
        iter(distribution.distribute(strategy, batches)),
        tf.constant(1, tf.int64),
    )
    found = [keras.ops.convert_to_numpy(v) for v in optimizer.velocities]
    return found, np.sqrt(sum((v**2).sum() for v in found))


def test_the_gradient_of_the_whole_batch_is_clipped():
    free, norm = clipped_step("one_device", 0.0)
    assert norm > 0.1
    for name, micro_batch in (
        ("one_device", None),
        ("mirrored", None),
        ("mirrored", 1),
    ):
        short, found = clipped_step(name, norm / 4, micro_batch)
        assert found == pytest.approx(norm / 4, rel=1e-9)
        for a, b in zip(free, short, strict=True):
            np.testing.assert_allclose(b, a / 4, rtol=0, atol=1e-9)
        # One that is short enough stays as it is.
        _, found = clipped_step(name, norm * 2, micro_batch)
        assert found == pytest.approx(norm, rel=1e-9)


def run(path, *, stop=None, checkpoint_every=2, name="one_device", **kwargs):
    """Runs the loop as the program does; `stop` raises at that evaluation."""
    rules = recipe(**kwargs)
    strategy = distribution.build(name)
    model, optimizer = build(strategy, rules)
    workdir = workdir_lib.Workdir(path)
    workdir.path.mkdir(exist_ok=True)
    lines = []

    def evaluate(step):
        if step == stop:
            raise KeyboardInterrupt
        return {
            "top1": 0.5,
            "top1_low": 0.4,
            "top1_high": 0.6,
            "loss": 1.0,
            "examples": 2,
        }

    first = checkpoint.restore(
        workdir.checkpoints, model=model, optimizer=optimizer
    )
    loop.run(
        model=model,
        optimizer=optimizer,
        recipe=rules,
        batches=lambda step: data.for_training(
            EXAMPLES, rules, seed=0, first_step=step
        ),
        evaluate=evaluate,
        strategy=strategy,
        workdir=workdir,
        first_step=first,
        eval_every=3,
        checkpoint_every=checkpoint_every,
        log=lines.append,
    )
    weights = [keras.ops.convert_to_numpy(v) for v in model.variables]
    return weights, workdir_lib.read_metrics(path), lines, first


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return run(tmp_path_factory.mktemp("whole") / "run")


def test_rows_hold_what_scripts_rely_on(whole):
    _, rows, lines, _ = whole
    evaluations = [row for row in rows if "top1" in row]
    assert [row["step"] for row in evaluations] == [3, 6, 9, 10]
    training = [row for row in rows if "train_loss" in row]
    assert [row["step"] for row in training] == list(range(1, 11))
    assert [row["lr"] for row in training] == pytest.approx(
        [0, 0.025] + [0.05] * 5 + [0.005] * 3
    )
    # Three classes and a head of zeros: the first loss is ln 3.
    assert training[0]["train_loss"] == pytest.approx(np.log(3), rel=1e-5)
    assert lines[0].startswith("step 3: top-1 50.00 % (40.0 to 60.0)")


def test_an_interrupted_run_ends_bit_equal(whole, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "run", stop=6)
    weights, rows, _, first = run(tmp_path / "run")
    assert first == 4
    for a, b in zip(whole[0], weights, strict=True):
        np.testing.assert_array_equal(a, b)

    def timeless(rows):
        return [
            {k: v for k, v in row.items() if k != "images_per_second"}
            for row in rows
        ]

    assert timeless(rows) == timeless(whole[1])


def test_a_run_can_continue_on_other_devices(whole, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "run", stop=6)
    weights, _, _, first = run(tmp_path / "run", name="mirrored")
    assert first == 4
    # float32 over a few steps; a ReLU may change sign (1e-2 seen).
    for a, b in zip(whole[0], weights, strict=True):
        assert np.linalg.norm(a - b) <= 0.02 * max(np.linalg.norm(a), 1)


def test_several_steps_a_call_equal_single_ones(whole, tmp_path, monkeypatch):
    monkeypatch.setattr(loop.distribution, "has_accelerator", lambda _: True)
    weights, rows, _, _ = run(tmp_path / "run")
    for a, b in zip(whole[0], weights, strict=True):
        np.testing.assert_array_equal(a, b)
    assert [r["step"] for r in rows] == [r["step"] for r in whole[1]]


def test_a_loss_that_is_not_finite_stops_and_is_not_saved(tmp_path):
    with pytest.raises(ValueError, match="not finite.*lower --base_lr"):
        run(tmp_path / "run", base_lr=1e30, warmup_steps=0, checkpoint_every=1)
    for state in (tmp_path / "run" / "checkpoints").glob("step-*"):
        with np.load(state / "weights.npz") as stored:
            for key in stored.files:
                assert np.isfinite(stored[key]).all()


def test_a_long_run_is_told_how_to_be_short():
    rules = hyperrule.recipe(
        num_examples=100, image_height=300, image_width=300, model="R26x0.5"
    )
    assert estimate.shortcuts(rules, 3.0) == []
    # 500 steps of 60 s are 30,000 s.
    ways = dict(estimate.shortcuts(rules, 60.0))
    assert ways["--crop=128"] == pytest.approx(30_000 / 9)
    assert ways["--batch_size=64"] == pytest.approx(30_000 / 8)
    assert ways["--crop=128 --batch_size=64"] == pytest.approx(30_000 / 72)
    # A hundred times slower, fewer steps are needed too.
    *_, (flags, seconds) = estimate.shortcuts(rules, 6000.0)
    assert flags == "--crop=128 --batch_size=64 --total_steps=14"
    assert seconds == pytest.approx(14 * 6000 / 72)


def test_parts_fit_into_memory():
    def size(name, crop, batch=512):
        return loop.micro_batch_size(name, crop=crop, replica_batch=batch)

    assert size("R26x0.5", 32) == 512
    assert 512 % size("R26x0.5", 384) == 0
    assert size("R26x0.5", 384) < 32
    assert size("R152x4", 480) == 1
    assert size("R26x0.5", 384, batch=7) == 7
    assert size("R50x1", 384, batch=7) == 1


def test_events_are_scalars_that_tensorboard_reads(tmp_path):
    workdir = workdir_lib.Workdir(tmp_path)
    events.Events(workdir.tensorboard).write({"step": 7, "top1": 0.25})
    (file,) = workdir.tensorboard.iterdir()
    found = {}
    for event in tf.compat.v1.train.summary_iterator(str(file)):
        for value in event.summary.value:
            plugin = value.metadata.plugin_data.plugin_name
            found[value.tag] = (
                event.step,
                plugin,
                float(tf.make_ndarray(value.tensor)),
            )
    assert found == {"top1": (7, "scalars", 0.25)}


def test_a_batch_that_does_not_divide_is_refused():
    with pytest.raises(ValueError, match="multiples of 2"):
        distribution.check_batch_size(distribution.build("mirrored"), 5)


def test_an_unknown_strategy_is_refused():
    with pytest.raises(ValueError, match="allowed are auto"):
        distribution.build("pods")


def test_metrics_rows_are_json_lines(whole):
    for row in whole[1]:
        assert json.loads(json.dumps(row)) == row
