"""The layers that make a BiT: StdConv2D and GroupNorm (paper, section 3.2)."""

import dataclasses

import keras
from keras import ops

from bit_tf import architecture
from bit_tf import formulations

GROUP_NORM_EPSILON = 1e-5


@keras.saving.register_keras_serializable(package="bit_tf")
class StdConv2D(keras.layers.Layer):
    """Bias-free convolution with a standardised kernel and fixed padding.

    The input is zero-padded by (kernel_size - 1) // 2 on every side whatever
    the stride, as in the released models; "SAME" pads strided convolutions
    asymmetrically and would be another network.

    Args:
        filters: output channels.
        kernel_size: odd side of the square kernel.
        strides: step in both directions.
        kernel_initializer: of the raw, not yet standardised kernel. The paper
            does not say; glorot_uniform is what the official TF2 code got
            from Keras.
    """

    # What networks without standardisation say otherwise.
    standardizes = True

    def __init__(
        self,
        filters: int,
        kernel_size: int,
        *,
        strides: int = 1,
        kernel_initializer="glorot_uniform",
        **kwargs,
    ):
        super().__init__(**kwargs)
        if kernel_size % 2 == 0:
            raise ValueError(
                f"kernel_size={kernel_size}: allowed are odd sizes, which can "
                "be padded alike on every side."
            )
        self.filters = filters
        self.kernel_size = kernel_size
        self.strides = strides
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        # Whether the kernel is one that was standardised, see `folding`.
        self.is_folded = False

    def build(self, input_shape):
        self.kernel = self.add_weight(
            name="kernel",
            shape=(
                self.kernel_size,
                self.kernel_size,
                input_shape[-1],
                self.filters,
            ),
            initializer=self.kernel_initializer,
            # Standardised in full precision first, cast afterwards.
            autocast=False,
        )

    def standard_kernel(self):
        """Returns what the layer convolves with, in the compute dtype."""
        kernel = self.kernel.value
        if self.standardizes and not self.is_folded:
            kernel = formulations.standardize(kernel)
        return ops.cast(kernel, self.compute_dtype)

    def call(self, inputs):
        return formulations.convolve(
            inputs, self.standard_kernel(), self.strides
        )

    def compute_output_shape(self, input_shape):
        def strided(size):
            return None if size is None else -(-size // self.strides)

        batch, height, width, _ = input_shape
        return (batch, strided(height), strided(width), self.filters)

    def get_config(self):
        return {
            **super().get_config(),
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "strides": self.strides,
            "kernel_initializer": keras.initializers.serialize(
                self.kernel_initializer
            ),
        }


@keras.saving.register_keras_serializable(package="bit_tf")
class GroupNorm(keras.layers.Layer):
    """Group normalisation over (height, width, channels of a group).

    Statistics are taken in float32 or wider under any dtype policy, see
    `formulations.group_norm` (Wu & He, arXiv 1803.08494).

    Args:
        groups: number of contiguous channel blocks; divides the channels.
        epsilon: added to the variance. Keras' own default, 1e-3, is not the
            released models' 1e-5.
    """

    def __init__(
        self,
        *,
        groups: int = architecture.GROUPS,
        epsilon: float = GROUP_NORM_EPSILON,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.groups = groups
        self.epsilon = epsilon

    def build(self, input_shape):
        channels = input_shape[-1]
        if channels % self.groups:
            raise ValueError(
                f"{channels} channels cannot be put into {self.groups} equal "
                "groups: allowed are multiples of the group count."
            )
        # Scale and shift are applied in full precision too.
        self.gamma = self.add_weight(
            name="gamma", shape=(channels,), initializer="ones", autocast=False
        )
        self.beta = self.add_weight(
            name="beta", shape=(channels,), initializer="zeros", autocast=False
        )

    @property
    def arguments(self) -> dict:
        """What `formulations.group_norm` is to be given beside the input."""
        return {
            "gamma": self.gamma.value,
            "beta": self.beta.value,
            "groups": self.groups,
            "epsilon": self.epsilon,
        }

    def call(self, inputs):
        return formulations.group_norm(inputs, **self.arguments)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {
            **super().get_config(),
            "groups": self.groups,
            "epsilon": self.epsilon,
        }


@dataclasses.dataclass(frozen=True)
class Layers:
    """What a network is made of.

    Args:
        norm: a class of layers, to be called with name and dtype.
        convolution: StdConv2D or a class derived from it.

    Raises:
        ValueError: one that is not registered with Keras, so that the network
            could not be loaded again.
    """

    norm: type[keras.layers.Layer] = GroupNorm
    convolution: type[StdConv2D] = StdConv2D

    def __post_init__(self):
        for field in dataclasses.fields(self):
            layer = getattr(self, field.name)
            name = isinstance(layer, type) and keras.saving.get_registered_name(
                layer
            )
            if (
                not name
                or keras.saving.get_registered_object(name) is not layer
            ):
                raise ValueError(
                    f"{field.name}={layer!r}: allowed are classes of layers "
                    "that keras.saving.register_keras_serializable knows."
                )

    def new_norm(self, dtype) -> keras.layers.Layer:
        name = "group_norm" if self.norm is GroupNorm else "norm"
        return self.norm(name=name, dtype=dtype)

    def get_config(self) -> dict:
        """Returns their names, of what is registered with Keras."""
        return {
            field.name: keras.saving.get_registered_name(
                getattr(self, field.name)
            )
            for field in dataclasses.fields(self)
        }

    @classmethod
    def of(cls, given: "Layers | dict") -> "Layers":
        """Returns them, also as a configuration has them."""
        if isinstance(given, Layers):
            return given
        return cls(
            **{
                name: keras.saving.get_registered_object(registered)
                for name, registered in given.items()
            }
        )


BIT = Layers()
