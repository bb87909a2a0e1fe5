import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from bit_tf import ahead

# A graph that calls it is traced, and XLA writes down what it compiles.
TRACED = """
import threading
import tensorflow as tf
from bit_tf import ahead

strategy = tf.distribute.OneDeviceStrategy("CPU:0")
double = ahead.Compiled(lambda x, factor: x * factor)
step = lambda x: strategy.run(double, args=(x, 2.0))
graph = tf.function(step, autograph=False)
with ahead.while_traced(strategy.extended.worker_devices[0]):
    graph.get_concrete_function(tf.TensorSpec((8, 4)))
for thread in threading.enumerate():
    if thread.name.startswith("ahead"):
        thread.join()
"""
CALLED = """
assert (graph(tf.ones((8, 4))).numpy() == 2).all()
"""
# Whoever is interrupted waits for one of them.
INTERRUPTED = """
import tensorflow as tf
from bit_tf import ahead

double = ahead.Compiled(lambda x: 2 * x)
try:
    with ahead.while_traced("CPU:0"):
        for size in range(1, 200):
            tf.function(double).get_concrete_function(tf.TensorSpec((size,)))
        raise KeyboardInterrupt
except KeyboardInterrupt:
    pass
"""
# Python has begun to end when the other thread traces.
ENDED = """
import threading
import tensorflow as tf
from bit_tf import ahead

def compute():
    threading.main_thread().join()
    with ahead.while_traced("CPU:0"):
        double = tf.function(ahead.Compiled(lambda x: 2 * x), autograph=False)
        print(float(double(tf.constant(3.0))))

threading.Thread(target=compute).start()
"""
needs_two_cores = pytest.mark.skipif(
    not ahead._has_idle_core(), reason="on one core nothing is compiled ahead"
)


class Recorder:
    """A thread that is asked, and does nothing."""

    def __init__(self):
        self.asked = []

    def submit(self, function, *args):
        self.asked.append(args)


@pytest.fixture
def recorder():
    found = Recorder()
    token = ahead._helper.set((found, "CPU:0"))
    yield found
    ahead._helper.reset(token)


def traced(function, *shapes):
    tf.function(function, autograph=False).get_concrete_function(
        *(tf.TensorSpec(shape) for shape in shapes)
    )


def compiled_modules(directory: pathlib.Path, code: str) -> int:
    dump = f"--xla_dump_to={directory} --xla_dump_hlo_as_text"
    run(code, XLA_FLAGS=dump)
    return len(list(directory.glob("*before_optimizations.txt")))


def run(code: str, **environment) -> str:
    return subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        text=True,
        timeout=300,
    ).stdout


@needs_two_cores
@pytest.mark.parametrize("code", [TRACED, TRACED + CALLED])
def test_it_is_compiled_once_and_before_it_is_called(tmp_path, code):
    assert compiled_modules(tmp_path, code) == 1


@needs_two_cores
def test_who_is_interrupted_does_not_wait_for_the_rest(tmp_path):
    assert compiled_modules(tmp_path, INTERRUPTED) < 150


@needs_two_cores
def test_python_that_ends_is_asked_for_no_thread():
    assert run(ENDED) == "6.0\n"


def test_the_result_is_that_of_the_function(recorder):
    function = ahead.Compiled(lambda x, y, factor: (x * factor, x + y))
    graph = tf.function(lambda x, y: function(x, y, 3.0), autograph=False)
    x, y = np.float32([[1, 2]]), np.float32([[5, 7]])
    product, total = graph(x, y)
    np.testing.assert_array_equal(product, 3 * x)
    np.testing.assert_array_equal(total, x + y)


def test_it_is_asked_for_once_per_shape_and_value(recorder):
    function = ahead.Compiled(lambda x, factor: x * factor)
    traced(lambda x: function(function(x, 2.0), 2.0), (8, 4))
    assert len(recorder.asked) == 1
    traced(lambda x: function(x, 3.0), (8, 4))
    traced(lambda x: function(x, 2.0), (4, 4))
    assert len(recorder.asked) == 3


def test_what_is_large_or_has_no_size_yet_waits(recorder, monkeypatch):
    monkeypatch.setattr(ahead, "MOST_ELEMENTS", 32)
    function = ahead.Compiled(lambda x: 2 * x)
    for shape in ((8, 5), (None, 4)):
        traced(function, shape)
    assert not recorder.asked
    traced(function, (8, 4))
    assert len(recorder.asked) == 1


def test_nothing_is_asked_for_outside(recorder):
    ahead._helper.set(None)
    traced(ahead.Compiled(lambda x: 2 * x), (8, 4))
    assert not recorder.asked


def test_one_core_has_no_time_for_it(monkeypatch):
    monkeypatch.setattr(ahead, "_has_idle_core", lambda: False)
    with ahead.while_traced("CPU:0"):
        assert ahead._helper.get() is None


def test_an_error_is_told_to_who_calls_the_graph(recorder):
    # XLA has no such operation.
    function = ahead.Compiled(lambda x: tf.strings.length(tf.as_string(x)))
    graph = tf.function(function, autograph=False)
    concrete = graph.get_concrete_function(tf.TensorSpec((8, 4)))
    for compute in (
        lambda: function._compute(*recorder.asked[0]),
        lambda: concrete(tf.ones((8, 4))),
    ):
        with pytest.raises(tf.errors.InvalidArgumentError):
            compute()
