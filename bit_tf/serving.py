"""What a SavedModel offers: encoded images or pixels in, answers out."""

import functools
from collections.abc import Callable
from collections.abc import Sequence

import keras
import tensorflow as tf

from bit_tf import decoding
from bit_tf import folding
from bit_tf import formulations
from bit_tf import image_file
from bit_tf import preprocessing
from bit_tf import resnet_v2

TOP_K = 5
UNREADABLE = "not a JPEG, PNG, GIF or BMP image, or damaged"
TOO_LARGE = f"more than {image_file.MAX_PIXELS:,} pixels"

Outputs = dict[str, tf.Tensor]


def reader(text: str, size: int) -> Callable:
    """Returns what reads a batch of encoded images, within the graph.

    Args:
        text: see `preprocessing.parse`; (size, size, 3) float32 in the end.
        size: side of what it makes, pixels.

    Returns:
        A function of (N,) strings that returns (N, size, size, 3) float32 and
        (N,) strings: what is wrong with an image, which is zero then, or "".
    """
    operation = preprocessing.parse(text)

    def read(content):
        pixels = operation(content, tf.zeros((2,), tf.int64))
        return tf.ensure_shape(pixels, (size, size, 3))

    def read_unless_too_large(content):
        too_large = decoding.declared_pixels(content) > image_file.MAX_PIXELS
        return tf.cond(
            too_large,
            lambda: (tf.zeros((size, size, 3)), tf.constant(TOO_LARGE)),
            lambda: (read(content), tf.constant("")),
        )

    def read_or_not(content):
        # A data set of one image is the one place in a graph where an error
        # can be caught.
        good = tf.data.Dataset.from_tensors(content).map(read_unless_too_large)
        bad = tf.data.Dataset.from_tensors(
            (tf.zeros((size, size, 3)), tf.constant(UNREADABLE))
        )
        found = good.ignore_errors().concatenate(bad).take(1)
        return found.get_single_element()

    def read_batch(contents):
        return tf.map_fn(
            read_or_not,
            contents,
            fn_output_signature=(
                tf.TensorSpec((size, size, 3), tf.float32),
                tf.TensorSpec((), tf.string),
            ),
        )

    return read_batch


def network(
    model: resnet_v2.ResNetV2,
    *,
    inference: bool,
    for_converter: bool = False,
) -> Callable:
    """Returns images -> {"logits", "features"}, whichever the network has.

    Args:
        model: float32.
        inference: whether kernels are standardised now, once and for all, and
            no longer at every call; the result cannot be trained. They are
            variables all the same: of constants in a graph TensorFlow makes
            copies, 3.3 GB instead of 1.0 for R50x1.
        for_converter: whether the graph is not to run but to be converted:
            plainly put, and with constants.

    Returns:
        A function of (B, H, W, 3) float32 in [0, 1], to be traced. What it
        needs besides the model's variables is in its attribute `variables`.
    """
    outputs = {"features": model.endpoints["pre_logits"]}
    if "logits" in model.endpoints:
        outputs["logits"] = model.endpoints["logits"]
    body = keras.Model(model.input, outputs)
    folded = folding.values_of(model) if inference else {}
    if not for_converter:
        folded = {
            path: tf.Variable(value, trainable=False)
            for path, value in folded.items()
        }

    def apply(images):
        # The network's own range is [-1, 1].
        images = images * 2.0 - 1.0
        with formulations.using("plain" if for_converter else "portable"):
            if not inference:
                return body(images)
            values = {p: tf.convert_to_tensor(v) for p, v in folded.items()}
            with folding.applied(model, values):
                return body(images)

    apply.variables = [] if for_converter else list(folded.values())
    return apply


def outputs(found: Outputs, *, head: str | None) -> Outputs:
    """Returns what is told of what the network gives, without names.

    Args:
        found: of `network`.
        head: see `reusable`; None for the features alone.

    Returns:
        "features"; or "numbers"; or "logits" and "probabilities".
    """
    if head is None:
        return {"features": tf.identity(found["features"])}
    logits = found["logits"]
    if head == "squared":
        return {"numbers": tf.identity(logits)}
    activation = {"softmax": tf.nn.softmax, "sigmoid": tf.nn.sigmoid}[head]
    return {"logits": tf.identity(logits), "probabilities": activation(logits)}


def with_names(found: Outputs, class_names: Sequence[str]) -> Outputs:
    """Returns `found` with the likeliest five, best first, if there are any.

    Returns:
        Also "classes", (N, k) strings, and "scores", (N, k) probabilities.
    """
    if "probabilities" not in found:
        return found
    scores, indices = tf.math.top_k(
        found["probabilities"], min(TOP_K, len(class_names))
    )
    classes = tf.gather(tf.constant(list(class_names)), indices)
    return {**found, "classes": classes, "scores": scores}


def reusable(
    model: resnet_v2.ResNetV2,
    *,
    class_names: Sequence[str],
    head: str,
    preprocess: str,
    size: int,
    inference: bool = False,
    weight_decay: float = 0.0,
) -> tuple[tf.train.Checkpoint, dict]:
    """Returns the object to save, free of Keras, and its signatures.

    Args:
        model: float32. One without a head gives a feature vector: features
            where a classifier has logits.
        class_names: one per output; none without a head.
        head: "softmax" if an image has one class, "sigmoid" if several,
            "squared" if the output is a number.
        preprocess: see `preprocessing.parse`; encoded image -> (size, size,
            3) in [0, 1].
        size: pixels.
        inference: see `network`.
        weight_decay: strength of `regularization_losses`; 0 for none.
    """
    has_head = model.num_classes is not None
    function = functools.partial(tf.function, autograph=False)
    images = tf.TensorSpec((None, None, None, 3), tf.float32, name="images")
    contents = tf.TensorSpec((None,), tf.string, name="image_bytes")
    read = reader(preprocess, size)
    apply = network(model, inference=inference)
    # Traced once; everything below calls it, so the file holds one network.
    body = function(apply, input_signature=[images])

    def output(images):
        return body(images)["logits" if has_head else "features"]

    def told(images) -> Outputs:
        found = outputs(body(images), head=head if has_head else None)
        return with_names(found, class_names)

    @function
    def call(images, training=False):
        # Nothing in a BiT network differs between training and inference.
        del training
        return output(images)

    for arguments in ({}, {"training": False}, {"training": True}):
        call.get_concrete_function(images, **arguments)

    @functools.partial(function, input_signature=[contents])
    def serve_bytes(image_bytes):
        pixels, errors = read(image_bytes)
        is_fine = tf.equal(errors, "")
        found = {
            name: tf.where(is_fine[:, None], value, tf.zeros_like(value))
            for name, value in told(pixels).items()
        }
        return {**found, "error": errors}

    root = tf.train.Checkpoint()
    root.__call__ = call
    root.features = function(
        lambda images: body(images)["features"], input_signature=[images]
    )
    root.preprocess = function(
        lambda image_bytes: read(image_bytes)[0], input_signature=[contents]
    )
    # Keras 3's TFSMLayer wants functions of one argument.
    root.serve = function(output, input_signature=[images])
    if has_head:
        names = list(class_names)
        root.class_names = function(
            lambda: tf.constant(names), input_signature=[]
        )
    root.variables = apply.variables
    root.trainable_variables, root.regularization_losses = [], []
    if not inference:
        root.serve_training = function(output, input_signature=[images])
        root.variables = [v.value for v in model.variables]
        root.trainable_variables = [v.value for v in model.trainable_variables]
        if weight_decay:
            root.regularization_losses = [
                _penalty(v.value, weight_decay)
                for v in model.trainable_variables
                if v.path.endswith("kernel")
            ]
    return root, {
        "serving_default": serve_bytes,
        "image_tensor": function(told, input_signature=[images]),
        "features": function(
            lambda images: {"features": body(images)["features"]},
            input_signature=[images],
        ),
    }


def _penalty(kernel: tf.Variable, weight_decay: float) -> Callable:
    @tf.function(input_signature=[])
    def loss():
        return weight_decay * tf.nn.l2_loss(kernel)

    return loss
