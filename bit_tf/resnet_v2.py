"""The whole network: ResNet-v2 with weight standardisation and GroupNorm.

One file from the 7x7 root convolution to the logits (BiT paper, section 3.2;
sizes as in the authors' released models). Every variable's path is the key
under which the published checkpoints store it, e.g.
"resnet/block1/unit01/a/standardized_conv2d/kernel".
"""

import contextlib
import dataclasses
import zlib
from collections.abc import Iterator

import keras
from keras import ops

from bit_tf import architecture
from bit_tf import formulations

GROUP_NORM_EPSILON = 1e-5
SCOPE = "resnet"
ENDPOINTS = (
    "root_block",
    "block1",
    "block2",
    "block3",
    "block4",
    "pre_logits",
    "logits",
)
# The names of `recipe.INITIALIZERS`.
INITIALIZERS = {
    "glorot_uniform": keras.initializers.GlorotUniform,
    "lecun_normal": keras.initializers.LecunNormal,
    "he_normal": keras.initializers.HeNormal,
}
POOLING = {
    "avg": keras.layers.GlobalAveragePooling2D,
    "max": keras.layers.GlobalMaxPooling2D,
    None: None,
}


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
        # Whether the kernel is one that was standardised, see `folded`.
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
    def from_config(cls, config: dict) -> "Layers":
        return cls(
            **{
                name: keras.saving.get_registered_object(registered)
                for name, registered in config.items()
            }
        )


BIT = Layers()


def _layers(given: Layers | dict) -> Layers:
    """Returns them, also as a configuration has them."""
    return given if isinstance(given, Layers) else Layers.from_config(given)


def _derived(seed: int | None, role: str) -> int | None:
    """Returns a seed of its own for a part; None stays None."""
    return None if seed is None else zlib.crc32(f"{seed}/{role}".encode())


def _seeded_conv(
    filters, kernel_size, *, layers, seed, initializer, role, **kwargs
):
    """A convolution whose initial kernel depends on these words alone."""
    return layers.convolution(
        filters,
        kernel_size,
        kernel_initializer="zeros"
        if seed is None
        else INITIALIZERS[initializer](seed=_derived(seed, role)),
        name="standardized_conv2d",
        **kwargs,
    )


@keras.saving.register_keras_serializable(package="bit_tf")
class RootBlock(keras.layers.Layer):
    """7x7 convolution and 3x3 max-pool, each of stride 2; no norm, no ReLU.

    (B, H, W, 3) -> (B, H/4, W/4, filters), sizes rounded up.
    """

    def __init__(
        self,
        filters: int,
        *,
        seed: int | None = 0,
        initializer: str = "glorot_uniform",
        layers: Layers | dict = BIT,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.made_of = _layers(layers)
        self.filters = filters
        self.seed = seed
        self.initializer = initializer
        self.conv = _seeded_conv(
            filters,
            7,
            strides=2,
            layers=self.made_of,
            seed=seed,
            initializer=initializer,
            role="root",
            dtype=self.dtype_policy,
        )

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

    def get_config(self):
        return {
            **super().get_config(),
            "filters": self.filters,
            "seed": self.seed,
            "initializer": self.initializer,
            "layers": self.made_of.get_config(),
        }


@keras.saving.register_keras_serializable(package="bit_tf")
class BottleneckUnit(keras.layers.Layer):
    """Pre-activation bottleneck: 1x1, 3x3 (with the stride), 1x1.

    (B, H, W, C) -> (B, H/strides, W/strides, 4 * filters). Where the shape
    changes, the shortcut is a 1x1 convolution of the pre-activated input;
    elsewhere it is the raw input. Nothing follows the addition.

    Args:
        filters: channels inside the bottleneck.
        strides: of the 3x3 convolution and of the shortcut.
        seed: of the initial kernels.
        initializer: of the initial kernels, one of `recipe.INITIALIZERS`.
        layers: what it is made of.
    """

    def __init__(
        self,
        filters: int,
        *,
        strides: int = 1,
        seed: int | None = 0,
        initializer: str = "glorot_uniform",
        layers: Layers | dict = BIT,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.made_of = _layers(layers)
        self.filters = filters
        self.strides = strides
        self.seed = seed
        self.initializer = initializer
        self._fresh = {
            "layers": self.made_of,
            "seed": seed,
            "initializer": initializer,
            "dtype": self.dtype_policy,
        }
        dtype = self.dtype_policy
        self.norm_a = self.made_of.new_norm(dtype)
        self.conv_a = _seeded_conv(filters, 1, role="a", **self._fresh)
        self.norm_b = self.made_of.new_norm(dtype)
        self.conv_b = _seeded_conv(
            filters, 3, strides=strides, role="b", **self._fresh
        )
        self.norm_c = self.made_of.new_norm(dtype)
        self.conv_c = _seeded_conv(self.filters_out, 1, role="c", **self._fresh)
        self.proj = None

    @property
    def filters_out(self) -> int:
        return architecture.BOTTLENECK_EXPANSION * self.filters

    def build(self, input_shape):
        batch, height, width, channels = input_shape
        if self.strides > 1 or channels != self.filters_out:
            self.proj = _seeded_conv(
                self.filters_out,
                1,
                strides=self.strides,
                role="proj",
                **self._fresh,
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
        return {
            **super().get_config(),
            "filters": self.filters,
            "strides": self.strides,
            "seed": self.seed,
            "initializer": self.initializer,
            "layers": self.made_of.get_config(),
        }


def _preactivated(x, norm, *convolutions: StdConv2D) -> list:
    """Returns each convolution of relu(norm(x)), in one go where it can."""
    if not isinstance(norm, GroupNorm):
        x = ops.relu(norm(x))
        return [conv(x) for conv in convolutions]
    return formulations.norm_relu_convolve(
        x,
        kernels=[conv.standard_kernel() for conv in convolutions],
        strides=[conv.strides for conv in convolutions],
        **norm.arguments,
    )


@keras.saving.register_keras_serializable(package="bit_tf")
class Block(keras.layers.Layer):
    """A chain of bottleneck units; only the first has the stride.

    Args:
        filters: channels inside the bottlenecks.
        num_units: length of the chain.
        strides: of the first unit.
        seed: of the initial kernels.
        initializer: of the initial kernels, one of `recipe.INITIALIZERS`.
        layers: what it is made of.
    """

    def __init__(
        self,
        filters: int,
        *,
        num_units: int,
        strides: int = 1,
        seed: int | None = 0,
        initializer: str = "glorot_uniform",
        layers: Layers | dict = BIT,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.made_of = _layers(layers)
        self.filters = filters
        self.num_units = num_units
        self.strides = strides
        self.seed = seed
        self.initializer = initializer
        self.units = [
            BottleneckUnit(
                filters,
                strides=strides if number == 1 else 1,
                seed=_derived(seed, _unit_name(number)),
                initializer=initializer,
                layers=self.made_of,
                name=_unit_name(number),
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
            "filters": self.filters,
            "num_units": self.num_units,
            "strides": self.strides,
            "seed": self.seed,
            "initializer": self.initializer,
            "layers": self.made_of.get_config(),
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


@keras.saving.register_keras_serializable(package="bit_tf")
class ResNetV2(keras.Model):
    """A BiT network as a functional Keras model.

    Input: (B, H, W, 3) RGB in [-1, 1], any H and W. Output: (B, classes)
    logits; without a head (B, 2048 * width) pooled features, or the map
    (B, H/32, W/32, 2048 * width).

    Args:
        depth: 26, 50, 101 or 152.
        width: channel multiplier; 64 * width divides into 32 groups.
        num_classes: outputs of the head; None for no head.
        pooling: "avg"; without a head also "max", or None for the map.
        classifier_activation: of the head's outputs, as Keras names it; None
            for logits, which training needs.
        include_preprocessing: whether the input is in [0, 255] instead.
        input_shape: (height, width, 3); None for a size that is not fixed.
        seed: of the initial kernels; equal seeds, equal weights. None for
            zeros, which take no time and no room, where weights are loaded
            next.
        initializer: of the raw kernels, one of `recipe.INITIALIZERS`; the paper
            does not say.
        layers: what it is made of.
        dtype: dtype policy or its name; None for Keras' current one.
    """

    def __init__(
        self,
        *,
        depth: int,
        width: float,
        num_classes: int | None,
        pooling: str | None = "avg",
        classifier_activation: str | None = None,
        include_preprocessing: bool = False,
        input_shape: tuple[int | None, int | None, int] = (None, None, 3),
        seed: int | None = 0,
        initializer: str = "glorot_uniform",
        layers: Layers | dict = BIT,
        dtype=None,
        name: str | None = None,
    ):
        layers = _layers(layers)
        policy = keras.dtype_policies.get(dtype or keras.config.dtype_policy())
        wide = policy.variable_dtype
        if pooling not in POOLING or (num_classes and pooling != "avg"):
            raise ValueError(
                f"pooling={pooling!r}: allowed is 'avg', and without a head "
                "also 'max' and None."
            )
        with keras.name_scope(SCOPE):
            inputs = keras.Input(input_shape, name="images", dtype=wide)
            x = inputs
            if include_preprocessing:
                x = keras.layers.Rescaling(
                    1 / 127.5, offset=-1.0, name="preprocessing", dtype=wide
                )(x)
            x = _body(
                x,
                depth=depth,
                width=width,
                seed=seed,
                initializer=initializer,
                layers=layers,
                policy=policy,
            )
            if pooling is not None:
                # Averaged in the variable dtype: a float16 sum could overflow.
                x = POOLING[pooling](name="pre_logits", dtype=wide)(x)
                # (B, 2048w)
            if num_classes is not None:
                x = Head(num_classes, name="head", dtype=wide)(x)
                # (B, classes)
                if classifier_activation is not None:
                    x = keras.layers.Activation(
                        classifier_activation, name="predictions", dtype=wide
                    )(x)
        super().__init__(inputs, x, name=name)
        self.made_of = layers
        self.depth = depth
        self.width = width
        self.num_classes = num_classes
        self._config = {
            "depth": depth,
            "width": width,
            "num_classes": num_classes,
            "pooling": pooling,
            "classifier_activation": classifier_activation,
            "include_preprocessing": include_preprocessing,
            "input_shape": tuple(input_shape),
            "seed": seed,
            "initializer": initializer,
            "layers": layers.get_config(),
            "dtype": keras.dtype_policies.serialize(policy),
        }

    def call(self, inputs, training=None, mask=None):
        if training is not False:
            return super().call(inputs, training=training, mask=mask)
        with formulations.for_inference():
            return super().call(inputs, training=training, mask=mask)

    @property
    def endpoints(self) -> dict:
        """Symbolic outputs by name, for `keras.Model(m.input, outputs)`.

        "root_block" and "block1" to "block4" are maps, (B, H/s, W/s, C) with
        strides 4, 4, 8, 16, 32; "pre_logits", where there is pooling, is
        (B, 2048 * width); "logits", where there is a head, (B, classes).
        """
        layers = {layer.name: layer for layer in self.layers}
        layers["logits"] = layers.get("head")
        return {
            name: layers[name].output for name in ENDPOINTS if layers.get(name)
        }

    @property
    def pyramid_outputs(self) -> dict:
        """Maps "P2" to "P5" of strides 4 to 32, as KerasHub's detectors ask.

        The outputs of the four blocks, before any norm and ReLU.
        """
        return {
            f"P{level}": self.endpoints[f"block{level - 1}"]
            for level in range(2, 6)
        }

    def get_config(self):
        return {**self._config, "name": self.name}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        config = dict(config)
        config["dtype"] = keras.dtype_policies.deserialize(config["dtype"])
        return cls(**config)


def _body(
    x,
    *,
    depth: int,
    width: float,
    seed: int | None,
    initializer: str,
    layers: Layers,
    policy,
):
    """(B, H, W, 3) -> (B, H/32, W/32, 2048w), up to the last ReLU."""
    channels = int(architecture.BASE_CHANNELS * width)
    fresh = {"initializer": initializer, "layers": layers, "dtype": policy}
    x = RootBlock(channels, seed=seed, name="root_block", **fresh)(x)
    # (B, H/4, W/4, 64w)
    for index, num_units in enumerate(architecture.UNITS[depth]):
        block_name = f"block{index + 1}"
        # (B, H/4, ...), then H/8, H/16, H/32 with 256w, 512w, ...
        x = Block(
            channels * 2**index,
            num_units=num_units,
            strides=1 if index == 0 else 2,
            seed=_derived(seed, block_name),
            name=block_name,
            **fresh,
        )(x)
    x = layers.new_norm(policy)(x)
    return keras.layers.ReLU(name="relu", dtype=policy)(x)


def build(
    name: str,
    num_classes: int | None = None,
    *,
    seed: int | None = 0,
    initializer: str = "glorot_uniform",
    norm: type[keras.layers.Layer] = GroupNorm,
    convolution: type[StdConv2D] = StdConv2D,
    remat: bool = False,
    dtype=None,
) -> ResNetV2:
    """Builds a network with fresh weights.

    Args:
        name: "R{26|50|101|152}x{width}", e.g. "R50x1", "R26x0.5".
        num_classes: size of the zero-initialised head; None for no head.
        seed: of the initial kernels; None for zeros, where weights are
            loaded next.
        initializer: of the raw kernels, one of `recipe.INITIALIZERS`; the paper
            does not say.
        norm: what normalises; for comparisons, see `alternatives`.
        convolution: the same of what convolves.
        remat: whether the bottleneck units compute their inner activations
            again in the backward pass instead of keeping them: the same
            numbers for a quarter less memory and some more time.
        dtype: dtype policy; None for Keras' current one.

    Raises:
        ValueError: unknown name, fewer than one class, or layers that cannot
            be used so.
    """
    depth, width = architecture.parse_name(name)
    if num_classes is not None and num_classes < 1:
        raise ValueError(
            f"num_classes={num_classes}: allowed is a whole number >= 1, or "
            "None for a network without a head."
        )
    if remat and norm is not GroupNorm:
        # It would take another call for one of inference.
        raise ValueError(
            f"remat=True is not for norm={norm.__name__}: only GroupNorm "
            "computes the same twice."
        )
    with _rematerialized_units() if remat else contextlib.nullcontext():
        return ResNetV2(
            depth=depth,
            width=width,
            num_classes=num_classes,
            seed=seed,
            initializer=initializer,
            layers=Layers(norm, convolution),
            dtype=dtype,
            name=name,
        )


def _rematerialized_units() -> keras.RematScope:
    """Returns the scope in which Keras rematerialises the units alone.

    Blocks would keep little less than their one, and single layers all that
    lies between them.
    """
    longest = max(max(units) for units in architecture.UNITS.values())
    names = [_unit_name(number) for number in range(1, longest + 1)]
    return keras.RematScope("list_of_layers", layer_names=names)


def _unit_name(number: int) -> str:
    return f"unit{number:02d}"


def folded_values(model: ResNetV2) -> dict:
    """Returns the variables' values by path, every kernel standardised."""
    folded = {
        conv.kernel.path for conv in _convolutions(model) if conv.standardizes
    }
    return {
        v.path: ops.convert_to_numpy(
            formulations.standardize(v.value) if v.path in folded else v.value
        )
        for v in model.variables
    }


@contextlib.contextmanager
def folded(model: ResNetV2, values: dict) -> Iterator[None]:
    """Within it the network computes with other values, as they are.

    For networks that are no longer trained: their kernels need not be
    standardised at every call.

    Args:
        model: the network; its own variables stay as they are.
        values: tensors by path, of `folded_values`.
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


def _convolutions(model: ResNetV2) -> list[StdConv2D]:
    # Keras has no public way to all layers within layers.
    return [
        layer
        for layer in model._flatten_layers()
        if isinstance(layer, StdConv2D)
    ]
