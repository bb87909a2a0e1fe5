"""The whole network: ResNet-v2 with weight standardisation and GroupNorm.

From the 7x7 root convolution to the logits (BiT paper, section 3.2): of
`layers`, put together to `blocks`, put together here.
"""

import contextlib

import keras

from bit_tf import architecture
from bit_tf import blocks
from bit_tf import formulations
from bit_tf import layers as layers_lib

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
POOLING = {
    "avg": keras.layers.GlobalAveragePooling2D,
    "max": keras.layers.GlobalMaxPooling2D,
    None: None,
}


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
        layers: layers_lib.Layers | dict = layers_lib.BIT,
        dtype=None,
        name: str | None = None,
    ):
        layers = layers_lib.Layers.of(layers)
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
                x = blocks.Head(num_classes, name="head", dtype=wide)(x)
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
    layers: layers_lib.Layers,
    policy,
):
    """(B, H, W, 3) -> (B, H/32, W/32, 2048w), up to the last ReLU."""
    channels = int(architecture.BASE_CHANNELS * width)
    fresh = {"initializer": initializer, "layers": layers, "dtype": policy}
    x = blocks.RootBlock(channels, seed=seed, name="root_block", **fresh)(x)
    # (B, H/4, W/4, 64w)
    for index, num_units in enumerate(architecture.UNITS[depth]):
        block_name = f"block{index + 1}"
        # (B, H/4, ...), then H/8, H/16, H/32 with 256w, 512w, ...
        x = blocks.Block(
            channels * 2**index,
            num_units=num_units,
            strides=1 if index == 0 else 2,
            seed=blocks.derived_seed(seed, block_name),
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
    norm: type[keras.layers.Layer] = layers_lib.GroupNorm,
    convolution: type[layers_lib.StdConv2D] = layers_lib.StdConv2D,
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
    if remat and norm is not layers_lib.GroupNorm:
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
            layers=layers_lib.Layers(norm, convolution),
            dtype=dtype,
            name=name,
        )


def _rematerialized_units() -> keras.RematScope:
    """Returns the scope in which Keras rematerialises the units alone.

    Blocks would keep little less than their one, and single layers all that
    lies between them.
    """
    longest = max(max(units) for units in architecture.UNITS.values())
    names = [blocks.unit_name(number) for number in range(1, longest + 1)]
    return keras.RematScope("list_of_layers", layer_names=names)
