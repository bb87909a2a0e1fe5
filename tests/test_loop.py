"""Training: replicas agree, interruptions leave no trace, NaN stops."""

import json
import os
import signal

import keras
import numpy as np
import pytest
import tensorflow as tf

from bit_tf import checkpoint
from bit_tf import data
from bit_tf import distribution
from bit_tf import estimate
from bit_tf import events
from bit_tf import execution as execution_lib
from bit_tf import hyperrule
from bit_tf import interruption
from bit_tf import journal
from bit_tf import loop
from bit_tf import update
from bit_tf import workdir as workdir_lib
from tests import steps
from tests.test_data import make_recipe


@pytest.fixture(autouse=True, scope="module")
def small_network():
    with steps.there_is_r14():
        yield


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
            "ema_decay": 0.5,
            **kwargs,
        }
    )


def run(
    path,
    *,
    stop=None,
    name="one_device",
    spoil=None,
    execution=None,
    lines=None,
    **kwargs,
):
    """Runs the loop as the program does.

    Args:
        stop: the evaluation at which it is interrupted.
        spoil: batches whose images are not finite.
    """
    rules = recipe(**kwargs)
    strategy = distribution.build(name, ["CPU:0", "CPU:1"])
    model, optimizer = steps.build(
        strategy, rules, dtype=(execution or {}).get("precision")
    )
    workdir = workdir_lib.Workdir(path)
    workdir.path.mkdir(exist_ok=True)
    lines = [] if lines is None else lines

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

    def batches(first, skipped):
        def of_host(host, hosts):
            dataset = data.for_training(
                steps.EXAMPLES,
                rules,
                seed=0,
                first_step=first,
                skipped=skipped,
                share=data.Share(host, hosts),
            )
            if spoil is None:
                return dataset
            bad = tf.constant(spoil, tf.int64)

            def spoilt(batch, contents):
                pairs, labels = contents
                is_bad = tf.reduce_any(bad == batch)
                weights = tf.where(is_bad, np.nan, pairs.weights)
                return pairs._replace(weights=weights), labels

            return dataset.enumerate(first + skipped).map(spoilt)

        return distribution.distribute(strategy, of_host)

    state = checkpoint.restore(
        workdir.checkpoints, model=model, optimizer=optimizer
    )
    loop.Loop(
        model=model,
        optimizer=optimizer,
        recipe=rules,
        execution=execution_lib.Execution(
            **{"eval_every": 3, "checkpoint_every": 2, **(execution or {})}
        ),
        batches=batches,
        evaluate=evaluate,
        strategy=strategy,
        workdir=workdir,
        state=state or checkpoint.State(),
        log=lines.append,
    ).run()
    weights = [keras.ops.convert_to_numpy(v) for v in model.variables]
    first = state.step if state else 0
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
        of_time = ("images_per_second", "input_share")
        return [
            {k: v for k, v in row.items() if k not in of_time} for row in rows
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


def test_several_steps_a_call_equal_single_ones(whole, tmp_path):
    weights, rows, _, _ = run(tmp_path / "run", execution={"steps_per_call": 4})
    for a, b in zip(whole[0], weights, strict=True):
        np.testing.assert_array_equal(a, b)
    assert [r["step"] for r in rows] == [r["step"] for r in whole[1]]


def test_a_loss_that_is_not_finite_stops_and_is_not_saved(tmp_path):
    with pytest.raises(ValueError, match="not finite.*lower --base_lr"):
        run(
            tmp_path / "run",
            base_lr=1e30,
            warmup_steps=0,
            execution={"checkpoint_every": 1},
        )
    for state in (tmp_path / "run" / "checkpoints").glob("step-*"):
        with np.load(state / "weights.npz") as stored:
            for key in stored.files:
                assert np.isfinite(stored[key]).all()


def test_data_that_is_not_finite_is_passed_over(tmp_path):
    rollback = {"nan_policy": "rollback", "checkpoint_every": 4}
    weights, rows, lines, _ = run(
        tmp_path / "run", spoil=[5], execution=rollback
    )
    assert [row["step"] for row in rows if "train_loss" in row] == list(
        range(1, 11)
    )
    assert any("not finite at step 6" in line for line in lines)
    (said,) = [line for line in lines if "rolling back" in line]
    assert said == "rolling back to step 4, past 2 batches (1 of 3 times)"
    assert all(np.isfinite(w).all() for w in weights)
    # Who is interrupted afterwards passes over the same data.
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "again", spoil=[5], stop=9, execution=rollback)
    again, _, lines, first = run(
        tmp_path / "again", spoil=[5], execution=rollback
    )
    assert first == 8 and not any("rolling" in line for line in lines)
    for a, b in zip(weights, again, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.slow
def test_a_run_rolls_back_to_its_start_and_only_three_times(tmp_path):
    with pytest.raises(loop.NotFiniteError, match="after 3 rollbacks") as end:
        run(
            tmp_path / "run",
            spoil=list(range(20)),
            execution={"nan_policy": "rollback"},
        )
    assert end.value.exit_code == 3


def test_asked_to_end_it_saves_the_step_and_continues(whole, tmp_path):
    rules = {"checkpoint_every": 100}

    class Asks(list):
        """A log that asks this process to end when it is first written."""

        def append(self, line):
            super().append(line)
            os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(interruption.StoppedError) as stopped:
        run(tmp_path / "run", lines=Asks(), execution=rules)
    assert signal.getsignal(signal.SIGTERM) is before
    assert stopped.value.number == signal.SIGTERM
    # Asked at the evaluation of step 3, it made one step more.
    assert stopped.value.step == 4
    weights, _, _, first = run(tmp_path / "run", execution=rules)
    assert first == 4
    for a, b in zip(whole[0], weights, strict=True):
        np.testing.assert_array_equal(a, b)


def test_asked_to_end_it_saves_before_it_evaluates(
    whole, tmp_path, monkeypatch
):
    made, calls = update.compiled, []

    def compiled(*args, **kwargs):
        real = made(*args, **kwargs)

        def steps(*given, **options):
            calls.append(1)
            report = real(*given, **options)
            if len(calls) == 3:
                os.kill(os.getpid(), signal.SIGTERM)
            return report

        return steps

    monkeypatch.setattr(loop.update, "compiled", compiled)
    rules = {"checkpoint_every": 100, "eval_every": 3}
    with pytest.raises(interruption.StoppedError) as stopped:
        run(tmp_path / "run", execution=rules)
    assert stopped.value.step == 3
    # Step 3 is due, and comes when it continues.
    rows = workdir_lib.read_metrics(tmp_path / "run")
    assert not [row for row in rows if "top1" in row]
    # Killed between its row and the state that knows of it.
    workdir_lib.Workdir(tmp_path / "run").append_metrics(
        {"step": 3, "examples": 1, "top1": 0.5}
    )
    weights, rows, _, first = run(tmp_path / "run", execution=rules)
    assert first == 3
    evaluated = [row for row in rows if "top1" in row]
    assert [row["step"] for row in evaluated] == [3, 6, 9, 10]
    assert evaluated[0]["examples"] > 1
    for a, b in zip(whole[0], weights, strict=True):
        np.testing.assert_array_equal(a, b)


def test_slow_input_is_said(whole):
    _, rows, _, _ = whole
    shares = [row["input_share"] for row in rows if "input_share" in row]
    assert shares and all(0 <= share <= 1 for share in shares)
    row = {"step": 1, "train_loss": 1.0, "lr": 0.1, "images_per_second": 9.0}
    text = journal.status({**row, "input_share": 0.456}, 10)
    assert text.endswith("9.0 images/s  46 % of it waiting for images")
    assert "waiting" not in journal.status({**row, "input_share": 0.05}, 10)


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
    two = distribution.build("mirrored", ["CPU:0", "CPU:1"])
    with pytest.raises(ValueError, match="multiples of 2"):
        distribution.check_batch_size(two, 5)


def test_an_unknown_strategy_is_refused():
    with pytest.raises(ValueError, match="allowed are auto"):
        distribution.build("pods")


def test_metrics_rows_are_json_lines(whole):
    for row in whole[1]:
        assert json.loads(json.dumps(row)) == row
