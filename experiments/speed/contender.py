"""One implementation in a process of its own, measured when it is told to.

python contender.py NAME WORK DIRECTORY

NAME is a key of CONTENDERS and WORK is "infer:BATCH:SIDE", "train:BATCH:SIDE",
or "start:BATCH:SIDE", which tells how much its first update took. DIRECTORY
holds weights.npz, weights.safetensors, in_order.npz, images.npy (BATCH, SIDE,
SIDE, 3) float32 in [-1, 1], labels.npy, and for the exported form inference/.
The process answers lines on stdin with lines of JSON: "logits FILE" writes the
logits, "run" works once, "end" ends.
"""

import functools
import importlib
import json
import pathlib
import resource
import sys
import time

import numpy as np

# A call shorter than this is repeated, so that a clock can time it.
SECONDS = 0.3
CLASSES = 1000
MOMENTUM = 0.9
# Logits that come after updates are still to be compared, and come after them,
# so that their memory is not counted.
RATE = 0.0


class Work:
    """What is to be done, and on what."""

    def __init__(self, text: str, directory: pathlib.Path):
        self.kind, batch, side = text.split(":")
        self.batch, self.side = int(batch), int(side)
        self.directory = directory
        self.images = np.load(directory / "images.npy")
        self.labels = np.load(directory / "labels.npy")


def _network(work, **kwargs):
    """Returns bit_tf's network with the weights of the directory."""
    from bit_tf import resnet_v2
    from bit_tf import weights

    model = resnet_v2.build("R50x1", CLASSES, seed=None, **kwargs)
    weights.load(work.directory / "weights.npz", model)
    return model


def bit_tf(work):
    """The network, and the update that `bit_tf.train` makes."""
    import tensorflow as tf

    model = _network(work)
    return _tensorflow(work, model, lambda: _bit_tf_update(work, model), tf)


def bit_tf_remat(work):
    """The same with --remat."""
    import tensorflow as tf

    model = _network(work, remat=True)
    return _tensorflow(work, model, lambda: _bit_tf_update(work, model), tf)


def _bit_tf_update(work, model):
    import tensorflow as tf

    from bit_tf import distribution
    from bit_tf import optimizer as optimizer_lib
    from bit_tf import training
    from bit_tf import update

    tf.config.optimizer.set_experimental_options(
        dict.fromkeys(training.USELESS_REWRITES, False)
    )
    optimizer = optimizer_lib.Momentum(RATE, momentum=MOMENTUM)
    optimizer.build(model.trainable_variables)
    steps = update.compiled(
        model,
        optimizer,
        batch_size=work.batch,
        strategy=distribution.build("one_device"),
    )
    one_hot = tf.one_hot(work.labels, model.num_classes)
    dataset = tf.data.Dataset.from_tensors((work.images, one_hot))
    iterator = iter(dataset.cache().repeat())
    return lambda: steps(iterator, 1)


def _tensorflow(work, model, update, tf):
    # Where updates are measured they have these in memory themselves.
    images = functools.cache(lambda: tf.constant(work.images))

    @tf.function
    def predict(images):
        return model(images, training=False)

    def logits():
        return predict(images()).numpy()

    return logits, logits if work.kind == "infer" else update()


def bit_tf_export(work):
    """What `bit_tf.export` writes, as whoever serves it loads it."""
    import tensorflow as tf

    loaded = tf.saved_model.load(str(work.directory / "inference"))
    images = tf.constant(work.images / 2 + 0.5)
    call = loaded.signatures["image_tensor"]

    def once():
        return call(images=images)["logits"].numpy()

    return once, once


def keras_naive(work):
    """Keras' own layers, imported as bit_tf's programs import TensorFlow."""
    import keras
    import tensorflow as tf

    from bit_tf import layers
    from bit_tf import resnet_v2

    @keras.saving.register_keras_serializable(package="naive")
    class Norm(keras.layers.GroupNormalization):
        def __init__(self, **kwargs):
            super().__init__(groups=32, epsilon=1e-5, **kwargs)

    @keras.saving.register_keras_serializable(package="naive")
    class Conv(layers.StdConv2D):
        def call(self, x):
            mean, variance = keras.ops.moments(
                self.kernel, axes=(0, 1, 2), keepdims=True
            )
            kernel = (self.kernel - mean) / keras.ops.sqrt(variance + 1e-10)
            pad = (self.kernel_size - 1) // 2
            if pad:
                x = keras.ops.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
            return keras.ops.conv(x, kernel, strides=self.strides)

    model = resnet_v2.build(
        "R50x1", CLASSES, seed=None, norm=Norm, convolution=Conv
    )
    in_order = np.load(work.directory / "in_order.npz")
    model.set_weights([in_order[name] for name in in_order.files])

    def update():
        optimizer = keras.optimizers.SGD(RATE, momentum=MOMENTUM)
        optimizer.build(model.trainable_variables)
        images, labels = tf.constant(work.images), tf.constant(work.labels)

        @tf.function
        def step():
            with tf.GradientTape() as tape:
                logits = model(images, training=True)
                loss = tf.reduce_mean(
                    tf.nn.sparse_softmax_cross_entropy_with_logits(
                        labels, logits
                    )
                )
            variables = model.trainable_variables
            gradients = tape.gradient(loss, [v.value for v in variables])
            optimizer.apply_gradients(zip(gradients, variables, strict=True))
            return loss

        return lambda: step().numpy()

    return _tensorflow(work, model, update, tf)


def keras_as_it_comes(work):
    """The same, imported as one does who does not measure."""
    return keras_naive(work)


def keras_alone(work):
    """The same without scikit-learn, which Keras imports where it is."""
    sys.modules["sklearn"] = None
    return keras_naive(work)


def _torch(work, model, *, channels_last=False, compiled=False):
    import torch

    torch.set_num_threads(2)
    form = torch.channels_last if channels_last else torch.contiguous_format
    images = torch.from_numpy(work.images.transpose(0, 3, 1, 2).copy())
    images = images.contiguous(memory_format=form)
    labels = torch.from_numpy(work.labels)
    model = model.to(memory_format=form)

    def of(outputs):
        return getattr(outputs, "logits", outputs)

    forward = torch.compile(model) if compiled else model

    @torch.no_grad()
    def logits():
        return of(forward(images)).numpy()

    if work.kind == "infer":
        model.eval()
        return logits, logits
    sgd = torch.optim.SGD(model.parameters(), lr=RATE, momentum=MOMENTUM)
    model.train()

    def step():
        sgd.zero_grad(set_to_none=True)
        loss = torch.nn.functional.cross_entropy(of(forward(images)), labels)
        loss.backward()
        sgd.step()
        return loss.item()

    return logits, step


def _timm(work):
    import timm

    return timm.create_model(
        "resnetv2_50x1_bit",
        num_classes=CLASSES,
        checkpoint_path=str(work.directory / "weights.safetensors"),
    )


def timm_eager(work):
    """timm as it comes."""
    return _torch(work, _timm(work))


def timm_channels_last(work):
    """timm with images as TensorFlow has them."""
    return _torch(work, _timm(work), channels_last=True)


def timm_compiled(work):
    """timm under torch.compile."""
    return _torch(work, _timm(work), compiled=True)


def transformers(work):
    """transformers' BitForImageClassification."""
    from transformers import BitForImageClassification

    folder = work.directory / "transformers"
    return _torch(work, BitForImageClassification.from_pretrained(folder))


CONTENDERS = {
    function.__name__: function
    for function in (
        bit_tf,
        bit_tf_remat,
        bit_tf_export,
        keras_naive,
        keras_as_it_comes,
        keras_alone,
        timm_eager,
        timm_channels_last,
        timm_compiled,
        transformers,
    )
}


BIT_TF = ("bit_tf", "bit_tf_remat", "bit_tf_export")


def _import_tensorflow():
    """As bit_tf's programs do; whoever serves has no scikit-learn either."""
    from bit_tf import importing

    with importing.quickly():
        importlib.import_module("keras")


def _seconds(once) -> float:
    begun = time.monotonic()
    once()
    return time.monotonic() - begun


def _used(since: float = 0.0) -> dict:
    """Returns seconds of cores, and the most memory there was."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "total_cpu_seconds": time.process_time() - since,
        "peak_mb": used.ru_maxrss / 1024,
    }


def main(name: str, work: str, directory: str) -> None:
    started = time.monotonic()
    if name in (*BIT_TF, "keras_naive"):
        _import_tensorflow()
    work = Work(work, pathlib.Path(directory))
    logits, once = CONTENDERS[name](work)
    ready = time.monotonic() - started
    answer = {"ready_s": ready, "first_s": _seconds(once)}
    repeats = 1
    if work.kind == "start":
        answer |= _used()
    else:
        repeats = max(1, round(SECONDS / _seconds(once)))
    print(json.dumps(answer), flush=True)
    for line in sys.stdin:
        command, *given = line.split()
        if command == "logits":
            np.save(given[0], np.asarray(logits()))
            print(json.dumps({}), flush=True)
        elif command == "run":
            begun, cpu = time.monotonic(), time.process_time()
            for _ in range(repeats):
                once()
            seconds = (time.monotonic() - begun) / repeats
            answer = {"seconds": seconds, **_used(since=cpu)}
            print(json.dumps(answer), flush=True)
        else:
            break


if __name__ == "__main__":
    main(*sys.argv[1:])
