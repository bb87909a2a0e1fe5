"""What a TPU would run, as far as can be seen without one."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from bit_tf import distribution
from bit_tf import mixup
from bit_tf import optimizer as optimizer_lib
from bit_tf import resnet_v2
from bit_tf import update
from tests import programs
from tests import steps

BATCH, SIDE, CLASSES = 2, 64, 3


def hlo(name, *, runs, **kwargs):
    """Returns the update of a replica in XLA's language.

    Args:
        runs: whether to compile it for this machine too, and run it.
    """
    rules = steps.recipe(batch_size=BATCH, weight_decay=1e-4)
    with steps.there_is_r14():
        model = resnet_v2.build(name, CLASSES, seed=None, **kwargs)
    optimizer = optimizer_lib.build(rules)
    optimizer.build(model.trainable_variables)
    replica_step = update.of_replica(
        model,
        optimizer,
        batch_size=BATCH,
        parts=2,
        loss_name="sigmoid",
        clip_norm=1.0,
        loss_scaling=True,
    )
    images = tf.zeros((BATCH, SIDE, SIDE, 3), tf.uint8)
    arguments = (
        mixup.Pairs(images, images, tf.ones((BATCH,))),
        tf.zeros((BATCH, CLASSES)),
        tf.ones(()),
        tf.zeros((), tf.float64),
    )
    compiled = tf.function(
        replica_step,
        jit_compile=True,
        input_signature=tf.nest.map_structure(
            tf.TensorSpec.from_tensor, arguments
        ),
    )
    text = compiled.experimental_get_compiler_ir(*arguments)(stage="hlo")
    if runs:
        loss, _, held, _ = compiled(*arguments).numpy()
        # A sigmoid of zero for each class.
        assert held == 0
        assert loss == pytest.approx(BATCH * CLASSES * np.log(2), rel=1e-3)
    keras.utils.clear_session()
    return text


@pytest.mark.parametrize(
    "name",
    [
        "R14x0.5",
        pytest.param("R50x1", marks=pytest.mark.slow),
        pytest.param("R152x4", marks=pytest.mark.slow),
    ],
)
def test_an_update_compiles_with_shapes_that_are_known(name):
    # A billion weights are put into words, and no more.
    text = hlo(name, runs=name != "R152x4", remat=True, dtype="mixed_bfloat16")
    assert text.startswith("HloModule")
    # No dimension is bounded only, and nothing is called back on the host.
    assert "<=" not in text.split("\n", 1)[0]
    for banned in ("infeed", "outfeed", "SendToHost", "xla_python"):
        assert banned not in text
    assert "convolution(" in text and "bf16" in text


class FakeTpu:
    """Stands in for TensorFlow's functions, and notes the calls."""

    def __init__(self, patch, error=None):
        self.calls = []

        def resolver(tpu):
            self.calls.append(("resolver", tpu))
            if error:
                raise error
            return f"resolver of {tpu}"

        def noted(name, value=None):
            def call(argument):
                self.calls.append((name, argument))
                return value

            return call

        patch.setattr(
            tf.distribute.cluster_resolver, "TPUClusterResolver", resolver
        )
        patch.setattr(
            tf.config, "experimental_connect_to_cluster", noted("connect")
        )
        patch.setattr(
            tf.tpu.experimental, "initialize_tpu_system", noted("initialize")
        )
        patch.setattr(
            tf.distribute, "TPUStrategy", noted("strategy", "a strategy")
        )


@pytest.mark.parametrize("name", ["auto", "tpu"])
def test_the_strategy_is_made_in_the_order_that_tpus_need(name, monkeypatch):
    fake = FakeTpu(monkeypatch)
    assert distribution.build(name, tpu="local") == "a strategy"
    resolver = "resolver of local"
    assert fake.calls == [
        ("resolver", "local"),
        ("connect", resolver),
        ("initialize", resolver),
        ("strategy", resolver),
    ]


@pytest.mark.parametrize(
    "error",
    [
        ValueError("Please provide a TPU Name to connect to."),
        tf.errors.NotFoundError(None, None, "TPUs not found in the cluster."),
    ],
)
def test_a_tpu_that_is_not_there_is_explained(error, monkeypatch):
    FakeTpu(monkeypatch, error)
    with pytest.raises(ValueError, match=r"no TPU 'v4'.*--tpu=local") as said:
        distribution.build("tpu", tpu="v4")
    assert "\n" not in str(said.value)


def test_strategies_need_what_they_are_for():
    for name, kwargs, wanted in (
        ("tpu", {}, "--tpu=NAME"),
        ("multi_worker", {}, "--worker_hosts"),
        ("mirrored", {"tpu": "local"}, "drop --strategy"),
    ):
        with pytest.raises(ValueError, match=wanted):
            distribution.build(name, **kwargs)


def test_without_a_tpu_the_program_says_so_in_one_line(tmp_path):
    done = programs.run(
        "train",
        "--dataset=builtin:patches",
        "--model=R26x0.5",
        f"--workdir={tmp_path / 'run'}",
        "--tpu=local",
    )
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert "there is no TPU 'local'" in done.stderr
