"""Numbers that are not finite are never kept; equal commands, equal bits."""

import numpy as np
import pytest
import tensorflow as tf

from bit_tf import loop
from bit_tf import update
from bit_tf import workdir as workdir_lib
from tests import steps
from tests import test_loop
from tests.faults import test_lives

PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")
VALUES = (float("nan"), float("inf"))
# The harness evaluates, saves, and is spoiled at these steps.
STEPS = (2, 5)


@pytest.fixture(autouse=True, scope="module")
def small_network():
    with steps.there_is_r14():
        yield


def spoil_gradient(patch, value, step, replica):
    """Multiplies one replica's gradient of the logits in one update."""
    real = update._logits

    def logits(model, images, kept):
        found = real(model, images, kept)
        context = tf.distribute.get_replica_context()
        is_here = context.replica_id_in_sync_group == replica
        iterations = spoil_gradient.optimizer.iterations

        @tf.custom_gradient
        def spoiled(x):
            def gradient(upstream):
                is_now = tf.logical_and(
                    tf.equal(tf.cast(iterations, tf.int64), step - 1), is_here
                )
                factor = tf.where(is_now, value, 1.0)
                return upstream * tf.cast(factor, upstream.dtype)

            return tf.identity(x), gradient

        return spoiled(found)

    made = update.of_replica

    def of_replica(model, optimizer, **kwargs):
        spoil_gradient.optimizer = optimizer
        return made(model, optimizer, **kwargs)

    patch.setattr(update, "_logits", logits)
    patch.setattr(update, "of_replica", of_replica)


def spoil_weight(patch, value, step):
    """Puts it into a weight, between two updates."""
    made = update.compiled

    def compiled(model, optimizer, **kwargs):
        real = made(model, optimizer, **kwargs)
        done = []

        def steps(*args, **options):
            done.append(1)
            if len(done) == step:
                weight = model.trainable_variables[3]
                spoiled = np.array(weight)
                spoiled.flat[0] = value
                weight.assign(spoiled)
            return real(*args, **options)

        return steps

    patch.setattr(update, "compiled", compiled)


def are_finite(path) -> bool:
    for file in path.glob("checkpoints/step-*/*.npz"):
        with np.load(file) as stored:
            if not all(np.isfinite(stored[key]).all() for key in stored.files):
                return False
    return True


@pytest.mark.campaign
@pytest.mark.parametrize("place", ["input", "loss", "gradient", "weight"])
def test_what_is_not_finite_stops_the_run_and_is_not_saved(
    campaign, count, tmp_path, monkeypatch, place
):
    cases = [(p, v, s) for p in PRECISIONS for v in VALUES for s in STEPS]
    demanded = "held back at once; ends or, where it passes, goes on"
    with campaign(f"R9 NaN and infinity in the {place}", demanded) as row:
        for precision, value, step in cases[:: count(12, 1)]:
            path, kwargs = tmp_path / str(row.faults), {}
            ended = None
            with monkeypatch.context() as patch:
                if place == "input":
                    kwargs["spoil"] = [step - 1]
                elif place == "gradient":
                    spoil_gradient(patch, value, step, replica=1)
                    kwargs["name"] = "mirrored"
                elif place == "weight":
                    spoil_weight(patch, value, step)
                else:
                    kwargs |= {"base_lr": 1e36, "warmup_steps": 0}
                try:
                    test_loop.run(
                        path,
                        execution={
                            "precision": precision,
                            "checkpoint_every": 1,
                        },
                        **kwargs,
                    )
                except (loop.NotFiniteError, ValueError) as error:
                    ended = error
            rows = workdir_lib.read_metrics(path)
            last = max((r["step"] for r in rows), default=0)
            # A batch that float16 cannot use is passed over as if its scale
            # had been too high, and the scale recovers.
            passed = precision == "mixed_float16" and place in (
                "input",
                "gradient",
            )
            stopped = isinstance(ended, ValueError) and (
                place == "loss" or last <= step
            )
            row.check(
                are_finite(path) and (stopped or (passed and last == 10)),
                f"{precision}, {value}, step {step}: {ended}, row {last}",
            )


@pytest.mark.slow
def test_the_same_command_leaves_the_same_bits(
    campaign, trainings, count, tmp_path
):
    demanded = "metrics.jsonl, weights.npz and evaluation.json alike"
    with campaign("R7 --deterministic twice", demanded) as row:
        for pair in range(count(1, 10)):
            left = []
            for half in range(2):
                path = tmp_path / f"{pair}{half}"
                life = trainings.run(
                    "train",
                    *test_lives.FLAGS,
                    f"--seed={pair}",
                    f"--total_steps={20 + pair}",
                    "--mixup_alpha=0.2",
                    "--deterministic",
                    f"--workdir={path}",
                )
                assert life.poll() == 0, life.printed()
                left.append(
                    [
                        (path / name).read_bytes()
                        for name in (
                            "metrics.jsonl",
                            "weights.npz",
                            "evaluation.json",
                        )
                    ]
                )
            row.check(left[0] == left[1], f"pair {pair}")


CHOICES = {
    "plain": {},
    "mixup": {"mixup_alpha": 0.4},
    "class weights": {"class_weights": "balanced"},
    "average": {"ema_decay": 0.9},
    "decay": {"weight_decay": 1e-3, "weight_decay_to": "start"},
    "decoupled decay": {
        "weight_decay": 1e-3,
        "weight_decay_kind": "decoupled",
    },
    "clipping": {"clip_norm": 0.5},
    "smoothing": {"label_smoothing": 0.1},
    "dropout": {"dropout": 0.2},
    "sigmoid": {"loss": "sigmoid", "head_bias": -2.0},
    "everything": steps.EVERYTHING,
}


def worst_difference(one, two) -> float:
    kinds = {key.split("/")[0] for key in one} & {"losses", "weight", "average"}
    return float(
        max(steps.largest_difference(one, two, kind) for kind in kinds)
    )


@pytest.mark.campaign
def test_parts_of_a_batch_are_the_batch(campaign, count):
    demanded = "losses, weights and averages to 1e-8 in float64, 20 updates"
    cases = [(name, parts) for name in CHOICES for parts in (2, 4, 8)]
    with campaign("R10 --accumulate_steps", demanded) as row:
        whole = {}
        for name, parts in cases[:: count(16, 1)]:
            rules = steps.recipe(**CHOICES[name])
            strategy = test_loop.distribution.build("one_device")
            if name not in whole:
                whole[name] = steps.train(strategy, rules=rules, count=20)
            found = steps.train(strategy, rules=rules, count=20, parts=parts)
            worst = worst_difference(whole[name], found)
            row.seen["worst"] = max(row.seen.get("worst", 0), worst)
            row.check(worst < 1e-8, f"{name}, {parts} parts: {worst}")


@pytest.mark.campaign
def test_devices_share_a_batch_and_not_its_result(campaign, count):
    demanded = "losses, weights and averages to 1e-8 in float64, 20 updates"
    with campaign("R11 1, 2 and 4 devices", demanded) as row:
        for name in list(CHOICES)[:: count(11, 1)]:
            rules = steps.recipe(**CHOICES[name])
            one = steps.train(
                test_loop.distribution.build("one_device"),
                rules=rules,
                count=20,
            )
            for number in (2, 4)[: count(1, 2)]:
                devices = [f"CPU:{i}" for i in range(number)]
                found = steps.train(
                    test_loop.distribution.build("mirrored", devices),
                    rules=rules,
                    count=20,
                )
                worst = worst_difference(one, found)
                row.seen["worst"] = max(row.seen.get("worst", 0), worst)
                row.check(worst < 1e-8, f"{name}, {number}: {worst}")
