"""Says what is on images: files in, CSV or JSON lines out.

python -m bit_tf.predict --model=DIR image.jpg folder/ > predictions.csv
"""

import csv
import json
import sys
import time

from absl import flags

from bit_tf import cells
from bit_tf import image_file
from bit_tf import importing
from bit_tf import model_flags as asked
from bit_tf import program
from bit_tf import progress as progress_lib

_FORMAT = flags.DEFINE_enum(
    "format", "csv", ["csv", "jsonl"], "What is written to standard output."
)
_TOP_K = flags.DEFINE_integer(
    "top_k", 5, "How many classes to tell.", lower_bound=1
)
_FEATURES = flags.DEFINE_bool(
    "features", False, "Tell the features before the head too."
)
_MAX_IMAGE_PIXELS = program.define_max_image_pixels()
flags.declare_key_flag("max_image_pixels")
_APPLY_EXIF = flags.DEFINE_bool(
    "apply_exif", True, "Turn photos as their cameras noted."
)
_ON_BAD_IMAGE = flags.DEFINE_enum(
    "on_bad_image",
    "skip",
    ["fail", "skip"],
    "What to do with images that cannot be used: end, or say why in the last "
    "column.",
)


def main(*given: str) -> None:
    if not given:
        raise ValueError(
            "no images: name files, folders or patterns, or - for a list of "
            "files on standard input."
        )
    path = program.model_path(asked.MODEL.value)
    with importing.quickly():
        from bit_tf import classifier as classifier_lib
        from bit_tf import listed_files
        from bit_tf import prediction

    names = [
        name
        for text in given
        for name in (_listed() if text == "-" else listed_files.expand([text]))
    ]
    if not names:
        raise ValueError(f"no images in {', '.join(given[:3])}.")
    classifier = classifier_lib.with_exif(
        classifier_lib.load(path, image_size=asked.IMAGE_SIZE.value),
        apply_exif=_APPLY_EXIF.value,
    )
    # The output is for another program; what is for people goes beside it.
    status = progress_lib.Progress(len(names), stream=sys.stderr)
    started = time.monotonic()

    def show(done: int) -> None:
        pace = done / max(time.monotonic() - started, 1e-9)
        status.update(
            done, f"{done} of {len(names)} images, {pace:.1f} images/s"
        )

    write = {"csv": _csv, "jsonl": _jsonl}[_FORMAT.value]
    bad = 0
    write_row = write(classifier)
    for found in prediction.predict(
        classifier,
        names,
        top_k=_TOP_K.value,
        batch_size=min(asked.BATCH_SIZE.value, len(names)),
        features=_FEATURES.value,
        reading=image_file.Reading(
            apply_exif=_APPLY_EXIF.value,
            max_pixels=_MAX_IMAGE_PIXELS.value,
            on_bad=_ON_BAD_IMAGE.value,
        ),
        progress=show,
    ):
        bad += bool(found.error)
        write_row(found)
    sys.stdout.flush()
    status.clear()
    seconds = time.monotonic() - started
    text = f"{len(names)} images in {progress_lib.duration(seconds)}"
    text += f", {len(names) / max(seconds, 1e-9):.1f} images/s"
    if bad:
        text += f"; {bad} could not be used, the column error says why"
    print(text, file=sys.stderr)


def _listed() -> list[str]:
    return [line for line in sys.stdin.read().splitlines() if line.strip()]


def _csv(classifier):
    """Writes the first line; returns what writes a row."""
    is_number = classifier.head == "squared"
    top_k = min(_TOP_K.value, len(classifier.class_names))
    columns = ["file"]
    if is_number:
        columns.append(cells.of_text(classifier.class_names[0]))
    for rank in range(1, top_k + 1) if not is_number else ():
        columns += [f"class_{rank}", f"probability_{rank}"]
    columns.append("error")
    width = len(columns)
    if _FEATURES.value:
        columns += [f"feature_{i}" for i in range(classifier.num_features)]
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(columns)

    def write(found) -> None:
        row = [cells.of_file(found.name)]
        for name, value in zip(found.classes, found.probabilities, strict=True):
            row += [] if is_number else [cells.of_text(name)]
            row.append(_digits(value))
        row += [""] * (width - 1 - len(row))
        row.append(cells.of_text(found.error))
        if found.features is not None:
            row += [_digits(value) for value in found.features]
        writer.writerow(row + [""] * (len(columns) - len(row)))

    return write


def _digits(value: float) -> str:
    return f"{value:.6g}"


def _jsonl(classifier):
    def write(found) -> None:
        row: dict = {"file": found.name}
        if found.error:
            row["error"] = found.error
        elif classifier.head == "squared":
            row[classifier.class_names[0]] = found.probabilities[0]
        else:
            row["classes"] = list(found.classes)
            row["probabilities"] = list(found.probabilities)
        if found.features is not None:
            row["features"] = [float(value) for value in found.features]
        print(json.dumps(row, ensure_ascii=False))

    return write


if __name__ == "__main__":
    flags.adopt_module_key_flags(asked)
    flags.mark_flag_as_required("model")
    program.run(main, arguments=None)
