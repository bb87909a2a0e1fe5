"""A network whose kernels are standardised once, not at every call."""

import contextlib
from collections.abc import Iterator

import keras
from keras import ops

from bit_tf import formulations
from bit_tf import layers
from bit_tf import resnet_v2


def values_of(model: resnet_v2.ResNetV2) -> dict:
    """Returns the variables' values by path, every kernel standardised."""
    standardized = {
        conv.kernel.path for conv in _convolutions(model) if conv.standardizes
    }
    return {
        v.path: ops.convert_to_numpy(
            formulations.standardize(v.value)
            if v.path in standardized
            else v.value
        )
        for v in model.variables
    }


@contextlib.contextmanager
def applied(model: resnet_v2.ResNetV2, values: dict) -> Iterator[None]:
    """Within it the network computes with other values, as they are.

    For networks that are no longer trained: their kernels need not be
    standardised at every call.

    Args:
        model: the network; its own variables stay as they are.
        values: tensors by path, of `values_of`.
    """
    convolutions = _convolutions(model)
    pairs = [(v, values[v.path]) for v in model.variables]
    for layer in convolutions:
        layer.is_folded = True
    try:
        with keras.StatelessScope(state_mapping=pairs):
            yield
    finally:
        for layer in convolutions:
            layer.is_folded = False


def _convolutions(model: resnet_v2.ResNetV2) -> list[layers.StdConv2D]:
    # Keras has no public way to all layers within layers.
    return [
        layer
        for layer in model._flatten_layers()
        if isinstance(layer, layers.StdConv2D)
    ]
