"""Functions that XLA compiles before they are needed, on another core.

XLA compiles a function when it is first computed with tensors of a shape, some
0.1 s for a loop over a large tensor, and a step that has thirty of them would
wait for each. That they will be needed is known as soon as the step is traced
that far.
"""

import contextlib
import contextvars
import functools
import os
from collections.abc import Callable
from collections.abc import Iterator
from concurrent.futures import thread

import tensorflow as tf

# Tensors with more elements (16 MB in float32) wait for the step: to compute
# with them ahead would take memory.
MOST_ELEMENTS = 2**22

# A thread, and the device for which it compiles.
_helper = contextvars.ContextVar("helper", default=None)


@contextlib.contextmanager
def while_traced(device: str) -> Iterator[None]:
    """Within it a thread has compiled what the graph that is traced calls.

    For graphs of one device that are not XLA's themselves: others would not
    find what was compiled. On a single core it does nothing.

    Args:
        device: where the graph will be computed.
    """
    if not _has_idle_core():
        yield
        return
    pool = thread.ThreadPoolExecutor(1, thread_name_prefix="ahead")
    token = _helper.set((pool, device))
    try:
        yield
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        raise
    finally:
        _helper.reset(token)
        # It ends when it has done what it was asked for.
        pool.shutdown(wait=False)


class Compiled:
    """A function that XLA compiles, to be called while others are traced."""

    def __init__(self, function: Callable):
        """
        Args:
            function: of tensors, and of values that can be hashed.
        """
        self._function = tf.function(
            function, jit_compile=True, autograph=False
        )
        self._begun = set()

    def __call__(self, *args):
        result = self._function(*args)
        if _helper.get() is not None:
            self._ask(*_helper.get(), args)
        return result

    def _ask(self, pool, device, args):
        signature = tuple(
            tf.TensorSpec(value.shape, value.dtype)
            if tf.is_tensor(value)
            else value
            for value in args
        )
        if (device, signature) in self._begun:
            return
        self._begun.add((device, signature))
        if all(map(_is_small, _tensors(signature))):
            # Python that is about to end takes no more.
            with contextlib.suppress(RuntimeError):
                pool.submit(self._compute, device, signature)

    def _compute(self, device, signature):
        """Computes with zeros: there is no other way to have it compiled.

        An error is the future's, at which nobody looks: it would come again in
        the step, where it can be told.
        """

        # What is compiled for a call from Python is not found again by graphs.
        @functools.partial(tf.function, autograph=False)
        def of_a_graph(*tensors):
            tensors = iter(tensors)
            return self._function(
                *(
                    next(tensors) if isinstance(value, tf.TensorSpec) else value
                    for value in signature
                )
            )

        tensors = _tensors(signature)
        with tf.device(device):
            compute = of_a_graph.get_concrete_function(*tensors)
            compute(*(tf.zeros(t.shape, t.dtype) for t in tensors))


def _tensors(signature) -> list[tf.TensorSpec]:
    return [value for value in signature if isinstance(value, tf.TensorSpec)]


def _is_small(tensor: tf.TensorSpec) -> bool:
    size = tensor.shape.num_elements()
    return size is not None and size <= MOST_ELEMENTS


def _has_idle_core() -> bool:
    """Returns whether anything can be done beside: one core only loses time."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0)) > 1
    return (os.cpu_count() or 1) > 1
