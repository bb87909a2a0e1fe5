"""Finds near duplicates between and inside sets of images.

python -m bit_tf.dedup TRAIN [TEST] --output=DIR
"""

import csv
import dataclasses
import functools
import io
import pathlib
import sys

import numpy as np
from absl import flags

from bit_tf import cells
from bit_tf import image_file
from bit_tf import importing
from bit_tf import program
from bit_tf import progress as progress_lib
from bit_tf import workdir as workdir_lib

_OUTPUT = flags.DEFINE_string(
    "output", None, "Directory for duplicates.csv and report.html."
)
_MODEL = flags.DEFINE_string(
    "model",
    None,
    "What compares the two pictures of each pair by their features too. With "
    "two sets, and folders that are its classes, it is evaluated on TEST with "
    "and without the images that stand in TRAIN. Workdir of a run, SavedModel "
    "directory, weights file, or published name.",
)
_MIN_FEATURE_SIMILARITY = flags.DEFINE_float(
    "min_feature_similarity",
    None,
    "With --model: drop the pairs whose features have a smaller cosine, -1 to "
    "1. Default: keep all.",
    lower_bound=-1.0,
    upper_bound=1.0,
)
_INSIDE = flags.DEFINE_bool(
    "inside", True, "With two sets: look for pairs inside each of them too."
)
_MAX_IMAGE_PIXELS = program.define_max_image_pixels()
program.define_trust_saved_model()
for _name in ("max_image_pixels", "trust_saved_model"):
    flags.declare_key_flag(_name)
program.define_mirror()


def main(*given: str) -> None:
    if not given:
        raise ValueError(
            "no images: name one or two folders, such as train/ test/."
        )
    if _MIN_FEATURE_SIMILARITY.value is not None and not _MODEL.value:
        raise ValueError(
            "--min_feature_similarity needs features: give --model too."
        )
    if flags.FLAGS.trust_saved_model and not _MODEL.value:
        raise ValueError("--trust_saved_model is for --model: give both.")
    model = program.model_path(_MODEL.value) if _MODEL.value else None
    with importing.quickly():
        from bit_tf import duplicates
        from bit_tf import listed_files
        from bit_tf import pairs_page

    reading = image_file.Reading(
        max_pixels=_MAX_IMAGE_PIXELS.value, on_bad="skip"
    )
    sets = []
    for text in given:
        files = list(listed_files.expand([text]))
        if not files:
            raise ValueError(f"{text} has no images.")
        status = progress_lib.Progress(len(files), stream=sys.stderr)
        found = duplicates.sign(
            files,
            reading=reading,
            progress=functools.partial(_show, status),
        )
        status.clear()
        for name, reason in found.bad[:3]:
            program.say(f"left out: {name} ({reason})")
        if len(found.bad) > 3:
            program.say(f"left out: {len(found.bad) - 3} more")
        sets.append(found)
    asked = {}
    if len(sets) == 2:
        asked["between the sets"] = (sets[0], sets[1])
    if len(sets) == 1 or _INSIDE.value:
        for text, one in zip(given, sets, strict=True):
            asked[f"inside {text}"] = (one, None)
    results = []
    for where, (first, second) in asked.items():
        other = first if second is None else second
        results += [
            pairs_page.Row(
                where=where,
                first=first.names[pair.first],
                second=other.names[pair.second],
                similarity=pair.similarity,
                how=pair.how,
            )
            for pair in duplicates.find(first, second)
        ]
    classifier = None
    if model is not None:
        with importing.quickly():
            from bit_tf import classifier as classifier_lib
        classifier = classifier_lib.load(model)
        results = _with_features(classifier, results, reading)
    for where, (_, second) in asked.items():
        own = [row for row in results if row.where == where]
        text = f"{len(own)} pairs"
        if second is not None:
            of = len({row.second for row in own})
            text += f", {of} of {len(second)} images of {given[1]}"
        program.say(f"{where}: {text}")
    facts = [
        (text, f"{len(one)} images")
        for text, one in zip(given, sets, strict=True)
    ]
    if classifier is not None and len(sets) == 2:
        known = {r.second for r in results if r.where == "between the sets"}
        facts += _accuracies(classifier, sets[1], known, reading)
    output = pathlib.Path(_OUTPUT.value).expanduser()
    output.mkdir(parents=True, exist_ok=True)
    workdir_lib.write_text(output / "duplicates.csv", _table(results))
    pairs_page.write(output / "report.html", results, facts)
    program.say(f"pairs         {output / 'duplicates.csv'}")
    program.say(f"report        {output / 'report.html'}")


def _show(status: progress_lib.Progress, done: int) -> None:
    status.update(done, f"read {done} of {status.total} images")


def _table(results) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    columns = ["where", "first", "second", "similarity", "how"]
    writer.writerow([*columns, "feature_similarity"])
    for row in results:
        by_features = row.feature_similarity
        writer.writerow(
            [
                row.where,
                *(cells.of_file(name) for name in (row.first, row.second)),
                *(f"{row.similarity:.4f}", row.how),
                "" if by_features is None else f"{by_features:.4f}",
            ]
        )
    return text.getvalue()


def _with_features(classifier, rows, reading):
    """Returns the pairs that a network finds alike too, and how much so."""
    with importing.quickly():
        from bit_tf import prediction

    names = sorted({name for row in rows for name in (row.first, row.second)})
    status = progress_lib.Progress(len(names), stream=sys.stderr)
    features = {
        found.name: found.features / np.linalg.norm(found.features)
        for found in prediction.predict(
            classifier,
            names,
            features=True,
            reading=reading,
            progress=functools.partial(_show, status),
        )
        if not found.error
    }
    status.clear()
    found = []
    for row in rows:
        if row.first in features and row.second in features:
            cosine = float(features[row.first] @ features[row.second])
            least = _MIN_FEATURE_SIMILARITY.value
            if least is not None and cosine < least:
                continue
            row = dataclasses.replace(row, feature_similarity=cosine)
        found.append(row)
    if len(found) < len(rows):
        program.say(
            f"{len(rows) - len(found)} pairs dropped: their features have a "
            f"cosine below {_MIN_FEATURE_SIMILARITY.value:g}"
        )
    return found


def _accuracies(classifier, test, known: set[str], reading):
    """Returns the accuracy on all of TEST, and without duplicates of TRAIN."""
    from bit_tf import metrics
    from bit_tf import prediction

    labels = {name: pathlib.Path(name).parent.name for name in test.names}
    strange = sorted(set(labels.values()) - set(classifier.class_names))
    if strange:
        program.say(
            f"no accuracy: folder {strange[0]!r} of TEST is none of the "
            f"model's {len(classifier.class_names)} classes"
        )
        return []
    status = progress_lib.Progress(len(test.names), stream=sys.stderr)
    right = {
        found.name: found.classes[0] == labels[found.name]
        for found in prediction.predict(
            classifier,
            test.names,
            top_k=1,
            reading=reading,
            progress=lambda done: status.update(
                done, f"classified {done} of {len(test.names)} images"
            ),
        )
        if not found.error
    }
    status.clear()
    facts = []
    for text, names in (
        ("top-1 on all of TEST", set(right)),
        ("top-1 without duplicates", set(right) - known),
    ):
        if not names:
            continue
        correct = sum(right[name] for name in names)
        low, high = metrics.wilson_interval(correct, len(names))
        value = (
            f"{100 * correct / len(names):.2f} % of {len(names):,} "
            f"({100 * low:.1f} to {100 * high:.1f})"
        )
        program.say(f"{text}: {value}")
        facts.append((text, value))
    return facts


if __name__ == "__main__":
    flags.mark_flag_as_required("output")
    program.run(main, arguments=2)
