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
import sys
import tensorflow as tf
from bit_tf import ahead

double = ahead.Compiled(lambda x, factor: x * factor)
graph = tf.function(lambda x: double(x, 2.0), autograph=False)
graph = graph.get_concrete_function(tf.TensorSpec((8, 4)))
ahead._thread().shutdown(wait=True)
print(sys.argv[1])
"""


class Recorder:
    """A thread that is asked, and does nothing."""

    def __init__(self):
        self.asked = []

    def submit(self, function, *args):
        self.asked.append(args)


@pytest.fixture
def recorder(monkeypatch):
    found = Recorder()
    monkeypatch.setattr(ahead, "_thread", lambda: found)
    monkeypatch.setattr(ahead, "_has_idle_core", lambda: True)
    return found


def traced(function, *shapes):
    tf.function(function, autograph=False).get_concrete_function(
        *(tf.TensorSpec(shape) for shape in shapes)
    )


def compiled_modules(directory: pathlib.Path, code: str) -> int:
    subprocess.run(
        [sys.executable, "-c", code, "said"],
        check=True,
        env={
            **os.environ,
            "XLA_FLAGS": f"--xla_dump_to={directory} --xla_dump_hlo_as_text",
        },
    )
    return len(list(directory.glob("*before_optimizations.txt")))


@pytest.mark.skipif(not ahead._has_idle_core(), reason="there is one core")
@pytest.mark.parametrize(
    "afterwards", ["", "graph(tf.ones((8, 4)))"], ids=["traced", "called"]
)
def test_it_is_compiled_once_and_before_it_is_called(tmp_path, afterwards):
    assert compiled_modules(tmp_path, TRACED + afterwards) == 1


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


def test_one_core_has_no_time_for_it(recorder, monkeypatch):
    monkeypatch.setattr(ahead, "_has_idle_core", lambda: False)
    traced(ahead.Compiled(lambda x: 2 * x), (8, 4))
    assert not recorder.asked


def test_an_error_in_the_thread_is_nobodys():
    # XLA has no such operation, which the one who calls the graph is told.
    function = ahead.Compiled(lambda x: tf.strings.length(tf.as_string(x)))
    graph = tf.function(function, autograph=False)
    concrete = graph.get_concrete_function(tf.TensorSpec((8, 4)))
    with pytest.raises(tf.errors.InvalidArgumentError):
        concrete(tf.ones((8, 4)))
