"""What one runtime makes of an exported model, without bit_tf.

python experiments/consumer.py KIND MODEL FOLDER RESULT.npz

FOLDER holds images.npy, (N, size, size, 3) in [0, 1], the same as the files
0.jpg, 1.jpg, ... RESULT has the outputs "logits" and the milliseconds per
image "ms", one at a time; of fine-tuning "losses" and "moved" instead.
Started by consumers.py, in the environment that KIND is of.
"""

import pathlib
import subprocess
import sys
import time

sys.modules["bit_tf"] = None

import numpy as np  # noqa: E402 -- after what it may not import

STEPS = 5


def hub_load(path, images, folder):
    import tensorflow_hub as hub

    model = hub.load(path)
    return _one_by_one(lambda x: model(x).numpy(), images)


def serving_default(path, images, folder):
    import tensorflow as tf

    model = tf.saved_model.load(path)
    serve = model.signatures["serving_default"]
    contents = [(folder / f"{i}.jpg").read_bytes() for i in range(len(images))]

    def call(content):
        found = serve(image_bytes=tf.constant(content))
        assert found["error"].numpy()[0] == b""
        return found["logits"].numpy()

    return _one_by_one(call, np.array(contents, object))


def tfsm_layer(path, images, folder):
    import keras

    layer = keras.layers.TFSMLayer(path, call_endpoint="serve")
    model = keras.Sequential([keras.Input((None, None, 3)), layer])
    return _one_by_one(lambda x: model.predict_on_batch(x), images)


def tfsm_layer_fine_tune(path, images, folder):
    import keras

    layer = keras.layers.TFSMLayer(
        path, call_endpoint="serve", call_training_endpoint="serve_training"
    )
    model = keras.Sequential([keras.Input((None, None, 3)), layer])
    return _fine_tuned(keras, model, layer.trainable_weights, images)


def hub_layer(path, images, folder):
    import tensorflow as tf
    import tensorflow_hub as hub

    model = tf.keras.Sequential([hub.KerasLayer(path)])
    return _one_by_one(lambda x: model.predict_on_batch(x), images)


def hub_layer_fine_tune(path, images, folder):
    import tensorflow as tf
    import tensorflow_hub as hub

    layer = hub.KerasLayer(path, trainable=True)
    model = tf.keras.Sequential([layer])
    return _fine_tuned(tf.keras, model, layer.trainable_variables, images)


def saved_model_cli(path, images, folder):
    out = folder / "cli"
    done = subprocess.run(
        [
            str(pathlib.Path(sys.executable).parent / "saved_model_cli"),
            *("run", "--dir", path, "--tag_set", "serve"),
            *("--signature_def", "image_tensor", "--overwrite"),
            *("--inputs", f"images={folder / 'images.npy'}"),
            *("--outdir", str(out)),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(done.stderr[-2000:])
    # It starts anew at every call: there is no time worth telling.
    return {"logits": np.load(out / "logits.npy"), "ms": np.nan}


def tflite(path, images, folder):
    from ai_edge_litert.interpreter import Interpreter

    runner = Interpreter(model_path=path, num_threads=2).get_signature_runner()
    return _one_by_one(lambda x: runner(images=x)["logits"], images)


def onnx(path, images, folder):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 2
    session = onnxruntime.InferenceSession(
        path, options, providers=["CPUExecutionProvider"]
    )
    return _one_by_one(
        lambda x: session.run(["logits"], {"images": x})[0], images
    )


def _one_by_one(call, images):
    call(images[:1])
    found, times = [], []
    for i in range(len(images)):
        began = time.perf_counter()
        found.append(call(images[i : i + 1]))
        times.append(time.perf_counter() - began)
    return {
        "logits": np.concatenate(found),
        "ms": 1e3 * float(np.median(times)),
    }


def _fine_tuned(keras, model, weights, images):
    labels = np.arange(8) % 2
    before = [w.numpy() for w in weights]
    model.compile(
        keras.optimizers.SGD(0.003),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    history = model.fit(
        images[:8], labels, batch_size=8, epochs=STEPS, verbose=0
    )
    moved = [
        (a != b.numpy()).any() for a, b in zip(before, weights, strict=True)
    ]
    return {
        "losses": history.history["loss"],
        "moved": sum(moved),
        "weights": len(before),
    }


if __name__ == "__main__":
    kind, path, folder, result = sys.argv[1:]
    folder = pathlib.Path(folder)
    found = globals()[kind](path, np.load(folder / "images.npy"), folder)
    np.savez(result, **found)
