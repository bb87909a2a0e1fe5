"""Errors of the user's and the machine's are one line; ours are not hidden."""

import errno
import os
import subprocess
import sys

import pytest
import tensorflow as tf

from bit_tf import architecture
from bit_tf import distribution
from bit_tf import mapping
from bit_tf import program


def caught(call):
    try:
        call()
    except Exception as error:
        return error
    raise AssertionError("nothing was raised")


def failing(error):
    def call():
        raise error

    return caught(call)


@pytest.mark.parametrize(
    ("error", "names"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "Make room"),
        (OSError(errno.EDQUOT, "Disk quota exceeded", "f"), "exceeded: f"),
        (PermissionError(errno.EACCES, "Permission denied", "f"), "denied"),
        (
            tf.errors.OutOfRangeError(None, None, "data-0; File too large"),
            "Make room",
        ),
        (
            tf.errors.ResourceExhaustedError(
                None, None, "No space left on device"
            ),
            "Make room",
        ),
        (
            tf.errors.ResourceExhaustedError(
                None, None, "OOM when allocating tensor with shape[512,64]"
            ),
            "--batch_size",
        ),
        (
            tf.errors.PermissionDeniedError(None, None, "f; Permission denied"),
            "Permission denied",
        ),
    ],
    ids=lambda value: str(value)[:30],
)
def test_the_machine_s_errors_are_explained(error, names):
    text = program._explain(failing(error))
    assert names in text
    assert "\n" not in text


def test_the_package_s_own_words_are_for_the_user():
    error = caught(lambda: architecture.parse_name("R1x1"))
    assert program._explain(error) == str(error)


def read_first(prepared, strategy):
    next(iter(prepared))


def update_with_first(prepared, strategy):
    @tf.function(autograph=False)
    def step(iterator):
        return strategy.run(lambda batch: batch, args=(next(iterator),))

    step(iter(distribution.distribute(strategy, lambda *of: prepared)))


@pytest.mark.parametrize("side", [8, 1000])
@pytest.mark.parametrize("read", [read_first, update_with_first])
@pytest.mark.parametrize("devices", [1, 2])
@pytest.mark.parametrize("name", ["nowhere.png", "[[no]]/where: {{x}} b.png"])
def test_a_missing_file_is_named_and_not_the_graph(
    name, devices, read, side, monkeypatch
):
    # Two to a call, or one.
    monkeypatch.setattr(mapping, "PARALLEL_CALLS", 2)

    def lost(number):
        return tf.io.read_file(tf.constant([name])[0]), number

    examples = tf.data.Dataset.from_tensors((tf.zeros((4,)),)).repeat()
    prepared = mapping.batches(examples, lost, size=4, side=side)
    strategy = tf.distribute.MirroredStrategy(
        [f"CPU:{device}" for device in range(devices)]
    )
    error = caught(lambda: read(prepared, strategy))
    assert program._explain(error) == f"{name}; No such file or directory"


@pytest.mark.parametrize(
    "error",
    [
        ValueError("raised by somebody else"),
        KeyError("x"),
        tf.errors.InvalidArgumentError(None, None, "shapes do not match"),
    ],
)
def test_our_mistakes_keep_their_traceback(error):
    assert program._explain(failing(error)) is None


IMPORTED = """
import gc
import sys

from bit_tf import importing

with importing.quickly():
    from bit_tf import training
    assert not gc.isenabled()
assert gc.isenabled() and gc.get_freeze_count() > 100_000
later = *importing.UNUSED, "matplotlib.figure", "jinja2", "tensorflow_datasets"
print([name for name in later if name in sys.modules])
import sklearn
from matplotlib import pyplot
"""


def test_programs_import_what_they_use_and_say_nothing_meanwhile():
    # Which would be a wish to see it.
    loud = {"TF_CPP_MIN_LOG_LEVEL"}
    done = subprocess.run(
        [sys.executable, "-c", IMPORTED],
        capture_output=True,
        text=True,
        env={key: os.environ[key] for key in os.environ.keys() - loud},
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "[]\n", "")


def test_what_goes_wrong_in_an_import_is_shown():
    code = "from bit_tf import importing\nwith importing.quickly():\n  "
    done = subprocess.run(
        [sys.executable, "-c", code + "import no_such_module"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "no_such_module" in done.stderr
