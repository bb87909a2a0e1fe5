"""The parts of a BiT: root, bottleneck unit, blocks of them, head.

After the paper's section 3.2, sizes as in the authors' released models. Every
variable's path is the key under which the published files store it, e.g.
"resnet/block1/unit01/a/standardized_conv2d/kernel".
"""

import zlib

import keras
from keras import ops

from bit_tf import architecture
from bit_tf import formulations
from bit_tf import layers as layers_lib

# The names of `recipe.INITIALIZERS`.
INITIALIZERS = {
    "glorot_uniform": keras.initializers.GlorotUniform,
    "lecun_normal": keras.initializers.LecunNormal,
    "he_normal": keras.initializers.HeNormal,
}


def derived_seed(seed: int | None, role: str) -> int | None:
    """Returns a seed of its own for a part; None stays None."""
    return None if seed is None else zlib.crc32(f"{seed}/{role}".encode())


def unit_name(number: int) -> str:
    return f"unit{number:02d}"


class _Part(keras.layers.Layer):
    """What is built of layers, and knows how to be built again.

    Args:
        filters: channels, see the part.
        seed: of the initial kernels; None for zeros.
        initializer: of the initial kernels, one of `recipe.INITIALIZERS`.
        layers: what it is made of.
    """

    def __init__(
        self,
        filters: int,
        *,
        seed: int | None = 0,
        initializer: str = "glorot_uniform",
        layers: layers_lib.Layers | dict = layers_lib.BIT,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.filters = filters
        self.seed = seed
        self.initializer = initializer
        self.made_of = layers_lib.Layers.of(layers)

    def _conv(self, filters: int, kernel_size: int, *, role: str, **kwargs):
        """A convolution whose initial kernel depends on seed and role alone."""
        return self.made_of.convolution(
            filters,
            kernel_size,
            kernel_initializer="zeros"
            if self.seed is None
            else INITIALIZERS[self.initializer](
                seed=derived_seed(self.seed, role)
            ),
            name="standardized_conv2d",
            dtype=self.dtype_policy,
            **kwargs,
        )

    def get_config(self):
        return {
            **super().get_config(),
            "filters": self.filters,
            "seed": self.seed,
            "initializer": self.initializer,
            "layers": self.made_of.get_config(),
        }


@keras.saving.register_keras_serializable(package="bit_tf")
class RootBlock(_Part):
    """7x7 convolution and 3x3 max-pool, each of stride 2; no norm, no ReLU.

    (B, H, W, 3) -> (B, H/4, W/4, filters), sizes rounded up.
    """

    def __init__(self, filters: int, **kwargs):
        super().__init__(filters, **kwargs)
        self.conv = self._conv(filters, 7, strides=2, role="root")

    def build(self, input_shape):
        self.conv.build(input_shape)

    def call(self, inputs):
        x = self.conv(inputs)
        # Zeros, not -inf: the root has no ReLU, so a border of zeros can win
        # over negative values, and the released weights were trained so.
        x = ops.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        return ops.max_pool(x, pool_size=3, strides=2, padding="valid")

    def compute_output_shape(self, input_shape):
        batch, height, width, _ = input_shape

        def quarter(size):
            return None if size is None else -(-size // 4)

        return (batch, quarter(height), quarter(width), self.filters)


@keras.saving.register_keras_serializable(package="bit_tf")
class BottleneckUnit(_Part):
    """Pre-activation bottleneck: 1x1, 3x3 (with the stride), 1x1.

    (B, H, W, C) -> (B, H/strides, W/strides, 4 * filters). Where the shape
    changes, the shortcut is a 1x1 convolution of the pre-activated input;
    elsewhere it is the raw input. Nothing follows the addition.

    Args:
        filters: channels inside the bottleneck.
        strides: of the 3x3 convolution and of the shortcut.
        **kwargs: see `_Part`.
    """

    def __init__(self, filters: int, *, strides: int = 1, **kwargs):
        super().__init__(filters, **kwargs)
        self.strides = strides
        dtype = self.dtype_policy
        self.norm_a = self.made_of.new_norm(dtype)
        self.conv_a = self._conv(filters, 1, role="a")
        self.norm_b = self.made_of.new_norm(dtype)
        self.conv_b = self._conv(filters, 3, strides=strides, role="b")
        self.norm_c = self.made_of.new_norm(dtype)
        self.conv_c = self._conv(self.filters_out, 1, role="c")
        self.proj = None

    @property
    def filters_out(self) -> int:
        return architecture.BOTTLENECK_EXPANSION * self.filters

    def build(self, input_shape):
        batch, height, width, channels = input_shape
        if self.strides > 1 or channels != self.filters_out:
            self.proj = self._conv(
                self.filters_out, 1, strides=self.strides, role="proj"
            )
        inner = (batch, height, width, self.filters)
        with keras.name_scope("a"):
            self.norm_a.build(input_shape)
            self.conv_a.build(input_shape)
            if self.proj is not None:
                with keras.name_scope("proj"):
                    self.proj.build(input_shape)
        with keras.name_scope("b"):
            self.norm_b.build(inner)
            self.conv_b.build(inner)
        with keras.name_scope("c"):
            self.norm_c.build(inner)
            self.conv_c.build(inner)

    def call(self, inputs):
        shortcut = inputs
        if self.proj is None:
            (x,) = _preactivated(inputs, self.norm_a, self.conv_a)
        else:
            x, shortcut = _preactivated(
                inputs, self.norm_a, self.conv_a, self.proj
            )
        (x,) = _preactivated(x, self.norm_b, self.conv_b)
        (x,) = _preactivated(x, self.norm_c, self.conv_c)
        return x + shortcut

    def compute_output_shape(self, input_shape):
        batch, height, width, _ = self.conv_b.compute_output_shape(input_shape)
        return (batch, height, width, self.filters_out)

    def get_config(self):
        return {**super().get_config(), "strides": self.strides}


def _preactivated(x, norm, *convolutions: layers_lib.StdConv2D) -> list:
    """Returns each convolution of relu(norm(x)), in one go where it can."""
    if not isinstance(norm, layers_lib.GroupNorm):
        x = ops.relu(norm(x))
        return [conv(x) for conv in convolutions]
    return formulations.norm_relu_convolve(
        x,
        kernels=[conv.standard_kernel() for conv in convolutions],
        strides=[conv.strides for conv in convolutions],
        **norm.arguments,
    )


@keras.saving.register_keras_serializable(package="bit_tf")
class Block(_Part):
    """A chain of bottleneck units; only the first has the stride.

    Args:
        filters: channels inside the bottlenecks.
        num_units: length of the chain.
        strides: of the first unit.
        **kwargs: see `_Part`.
    """

    def __init__(
        self, filters: int, *, num_units: int, strides: int = 1, **kwargs
    ):
        super().__init__(filters, **kwargs)
        self.num_units = num_units
        self.strides = strides
        self.units = [
            BottleneckUnit(
                filters,
                strides=strides if number == 1 else 1,
                seed=derived_seed(self.seed, unit_name(number)),
                initializer=self.initializer,
                layers=self.made_of,
                name=unit_name(number),
                dtype=self.dtype_policy,
            )
            for number in range(1, num_units + 1)
        ]

    def build(self, input_shape):
        for unit in self.units:
            unit.build(input_shape)
            input_shape = unit.compute_output_shape(input_shape)

    def call(self, inputs):
        for unit in self.units:
            inputs = unit(inputs)
        return inputs

    def compute_output_shape(self, input_shape):
        for unit in self.units:
            input_shape = unit.compute_output_shape(input_shape)
        return input_shape

    def get_config(self):
        return {
            **super().get_config(),
            "num_units": self.num_units,
            "strides": self.strides,
        }


@keras.saving.register_keras_serializable(package="bit_tf")
class Head(keras.layers.Layer):
    """Linear classifier, (B, features) -> (B, classes), zeros at the start.

    Stored as the 1x1 convolution that the published files hold. Its dtype is
    the policy's variable dtype: logits are never half precision.
    """

    def __init__(self, num_classes: int, **kwargs):
        super().__init__(**kwargs)
        self.num_classes = num_classes
        self.conv = keras.layers.Conv2D(
            num_classes,
            1,
            kernel_initializer="zeros",
            name="conv2d",
            dtype=self.dtype_policy,
        )

    def build(self, input_shape):
        self.conv.build((input_shape[0], 1, 1, input_shape[-1]))

    def call(self, inputs):
        # As a matrix: convolutions are slow at one pixel.
        kernel = ops.cast(self.conv.kernel[0, 0], self.compute_dtype)
        bias = ops.cast(self.conv.bias, self.compute_dtype)
        return ops.matmul(inputs, kernel) + bias

    def compute_output_shape(self, input_shape):
        return (input_shape[0], self.num_classes)

    def get_config(self):
        return {**super().get_config(), "num_classes": self.num_classes}
