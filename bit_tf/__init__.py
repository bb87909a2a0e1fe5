"""Big Transfer (BiT) for Keras 3 and TensorFlow."""

import importlib

__version__ = "0.1.0"

# For notebooks; imported when first used, as TensorFlow takes seconds.
_APPLICATIONS = (
    "BiT_R50x1",
    "BiT_R101x1",
    "BiT_R50x3",
    "BiT_R101x3",
    "BiT_R152x2",
    "BiT_R152x4",
    "decode_predictions",
    "preprocess_input",
)


def __getattr__(name: str):
    if name in _APPLICATIONS:
        return getattr(importlib.import_module("bit_tf.applications"), name)
    raise AttributeError(f"module 'bit_tf' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_APPLICATIONS])
