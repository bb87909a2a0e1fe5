"""Shows a page on this machine that says what is on images dropped there.

python -m bit_tf.demo --model=DIR
"""

import pathlib
import signal
import sys

from absl import flags

from bit_tf import image_file
from bit_tf import importing
from bit_tf import model_flags as asked
from bit_tf import neighbours
from bit_tf import program

_PORT = flags.DEFINE_integer(
    "port",
    8080,
    "Of the page, on 127.0.0.1; 0 for any that is free.",
    lower_bound=0,
    upper_bound=2**16 - 1,
)
_FEATURES = flags.DEFINE_string(
    "features",
    None,
    "What python -m bit_tf.predict --features --format=jsonl wrote of the "
    "training images: the five most like an image are shown beside it.",
)
_MAX_UPLOAD_MB = flags.DEFINE_integer(
    "max_upload_mb",
    20,
    "Larger files are refused, before they are read; millions of bytes.",
    lower_bound=1,
    upper_bound=2**10,
)
_MAX_IMAGE_PIXELS = program.define_max_image_pixels()
for _name in (
    "model",
    "image_size",
    "trust_saved_model",
    "mirror",
    "max_image_pixels",
):
    flags.declare_key_flag(_name)


def main() -> None:
    if asked.BATCH_SIZE.present:
        raise ValueError("--batch_size: here is one image at a time.")
    features = None
    if _FEATURES.value is not None:
        features = pathlib.Path(_FEATURES.value).expanduser()
        # What is missing is told before TensorFlow is imported.
        features.stat()
    path = program.model_path(asked.MODEL.value)
    with importing.quickly():
        from bit_tf import classifier as classifier_lib
        from bit_tf import demo_server
        from bit_tf import demonstration

    with demo_server.Server(_PORT.value) as server, image_file.many():
        classifier = classifier_lib.with_exif(
            classifier_lib.load(path, image_size=asked.IMAGE_SIZE.value),
            apply_exif=True,
        )
        stored = None
        if features is not None:
            stored = neighbours.read_features(
                features, num_features=classifier.num_features
            )
        demo = demonstration.Demo(
            classifier,
            reading=image_file.Reading(
                max_pixels=_MAX_IMAGE_PIXELS.value, on_bad="skip"
            ),
            max_upload_mb=_MAX_UPLOAD_MB.value,
            stored=stored,
        )
        for text in demo.prepare():
            program.say(f"note: {text}")
        # The end is no failure. What is started in the background begins with
        # Ctrl-C ignored.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: sys.exit(0))
        program.say(f"model         {classifier.about}")
        program.say(f"page          {server.address} until Ctrl-C")
        server.serve(demo)


if __name__ == "__main__":
    flags.mark_flag_as_required("model")
    program.run(main)
