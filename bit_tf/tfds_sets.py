"""TensorFlow Datasets, by name or directory -> Examples."""

import contextlib
import os
from collections.abc import Callable
from collections.abc import Iterator

from bit_tf import encoded
from bit_tf import examples as examples_lib
from bit_tf import labelling
from bit_tf import tasks

# TFRecord files that are smaller are held in memory, to be read in any order.
MAX_BYTES_IN_MEMORY = 8 * 2**30


def import_tfds():
    """Imports TensorFlow Datasets, which may fail without raising.

    Raises:
        ValueError: it is missing or came up empty, with the cure.
    """
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise ValueError(
            f"TensorFlow Datasets cannot be imported ({error}): pip install "
            "-r requirements.txt"
        ) from error
    if not hasattr(tfds, "load"):
        raise ValueError(
            "TensorFlow Datasets came up empty, as it does when protobuf is "
            "older than its metadata package: pip install 'protobuf>=6.31.1'"
        )
    return tfds


def load(
    task: tasks.Task,
    *,
    data_dir: str | None,
    log: Callable[[str], None],
) -> tuple[examples_lib.Images, examples_lib.Images]:
    """Returns the parts of a set that a task trains and is evaluated on.

    It is downloaded and prepared, where that has not been done.

    Args:
        task: of kind "tfds".
        data_dir: where TFDS keeps its sets; its own default if None.
        log: called with remarks, one line each.

    Raises:
        ValueError: there is no such set, or it is not for classification, or
            cannot be prepared or read.
    """
    tfds = import_tfds()
    try:
        builder = _builder(tfds, task.location, data_dir)
    except tfds.core.registered.DatasetNotFoundError as error:
        raise ValueError(
            f"unknown TensorFlow Datasets name {task.location!r}: see "
            "tensorflow.org/datasets/catalog, or give folder:PATH for images "
            "of your own."
        ) from error
    except (AssertionError, ValueError) as error:
        raise ValueError(
            f"dataset {task.location!r}: {_first_line(error)}"
        ) from error
    if task.rule is not None:
        _prepare(builder, task, log)
        facts = {
            "name": builder.info.full_name,
            "image_key": "image",
            "label_key": "",
            "class_names": task.rule.class_names,
        }
        return tuple(
            _read_split(
                tfds, builder, split, facts, may_stream=False, rule=task.rule
            )
            for split in (task.train_split, task.eval_split)
        )
    keys = builder.info.supervised_keys
    if not keys and {"image", "label"} <= set(builder.info.features):
        # Some sets do not say it.
        keys = ("image", "label")
    if not keys or len(keys) != 2:
        raise ValueError(
            f"dataset {task.location!r} has no (image, label) pair: only "
            "classification sets can be trained on."
        )
    image_key, label_key = keys
    feature = builder.info.features[label_key]
    # Several labels are a sequence of them.
    feature = getattr(feature, "feature", feature)
    names = getattr(feature, "names", None)
    if names is None or not hasattr(
        builder.info.features[image_key], "encode_example"
    ):
        raise ValueError(
            f"dataset {task.location!r}: {label_key!r} is not a class label; "
            "only classification sets can be trained on."
        )
    _prepare(builder, task, log)
    if len(names) < 2:
        raise ValueError(
            f"dataset {task.location!r} has {len(names)} class: a classifier "
            "needs at least two."
        )
    eval_split = task.eval_split or _usual_eval_split(builder, task)
    is_multi_label = feature is not builder.info.features[label_key]
    facts = {
        "name": builder.info.full_name,
        "image_key": image_key,
        "label_key": label_key,
        "class_names": tuple(names),
        "is_multi_label": is_multi_label,
    }
    return (
        _read_split(tfds, builder, task.train_split, facts, may_stream=True),
        _read_split(tfds, builder, eval_split, facts, may_stream=False),
    )


def _prepare(builder, task: tasks.Task, log: Callable[[str], None]) -> None:
    """Downloads and writes the set, where that has not been done.

    Raises:
        ValueError: it could not be done.
    """
    if not (builder.info.splits or builder.is_prepared()):
        log(
            f"{task.location} is not in {builder.data_dir}: downloading and "
            "preparing it there, once"
        )
    try:
        builder.download_and_prepare()
    except Exception as error:
        # Whatever a data set's own script raises: no network, no disk, a
        # manual download that is missing.
        raise ValueError(
            f"dataset {task.location!r} could not be prepared in "
            f"{builder.data_dir}: {_first_line(error)}"
        ) from error


def _builder(tfds, location: str, data_dir: str | None):
    path = os.path.expanduser(location)
    if os.path.isfile(os.path.join(path, "dataset_info.json")):
        return tfds.builder_from_directory(path)
    return tfds.builder(full_name(location), data_dir=data_dir)


def full_name(name: str) -> str:
    """Writes "set:2.*" as TFDS wants it, "set:2.*.*"."""
    base, colon, version = name.partition(":")
    if version.endswith(".*"):
        version += ".*" * (2 - version.count("."))
    return base + colon + version


def _first_line(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    return " ".join(text.splitlines()[0].split())[:300]


def _usual_eval_split(builder, task: tasks.Task) -> str:
    # Under some mocks and old builds the splits are not known beforehand.
    known = set(builder.info.splits)
    for split in ("test", "validation"):
        if split in known or not known:
            return split
    raise ValueError(
        f"dataset {task.location!r} has splits {', '.join(sorted(known))} and "
        "none called test or validation: name one with --eval_split."
    )


def _read_split(
    tfds,
    builder,
    split: str,
    facts: dict,
    *,
    may_stream: bool,
    rule: labelling.Rule | None = None,
) -> examples_lib.Images:
    """Returns a split: from its files as it is needed, or held in memory.

    With a rule for the labels it is held in memory.

    Raises:
        ValueError: it is not there, empty, damaged, or too large.
    """
    # TensorFlow is here already, brought by its data sets.
    from bit_tf import records

    with _reading(builder, split):
        found = builder.info.splits[split]
        pieces = [
            records.Piece(str(piece.filename), piece.skip, piece.take)
            for piece in found.file_instructions
        ]
    if not found.num_examples:
        raise ValueError(
            f"dataset {builder.name!r}, split {split!r} is empty: choose "
            "another with --train_split and --eval_split."
        )
    files = {"split": split, "pieces": pieces, **facts}
    file_format = builder.info.file_format
    if file_format == tfds.core.FileFormat.ARRAY_RECORD:
        found_records = records.Records(**files)
        if rule is None:
            _look_at_labels(builder, found_records)
            return found_records
        return _read_all(builder, found_records, rule)
    if file_format != tfds.core.FileFormat.TFRECORD:
        raise ValueError(
            f"dataset {builder.name!r} was prepared as {file_format.value}: "
            "allowed are array_record and tfrecord."
        )
    stream = records.Stream(**files)
    size = sum(
        os.path.getsize(piece.filename) * piece.take // piece.examples_in_shard
        for piece in found.file_instructions
    )
    if size <= MAX_BYTES_IN_MEMORY:
        return _read_all(builder, stream, rule)
    if may_stream:
        _look_at_labels(builder, stream)
        return stream
    raise ValueError(
        f"dataset {builder.name!r}, split {split!r} has {size:,} bytes, more "
        f"than the {MAX_BYTES_IN_MEMORY >> 30} GiB that are held in memory to "
        f"evaluate on: take a part of it, such as --eval_split='"
        f"{split.split('[')[0]}[:10%]', or prepare it with "
        "--file_format=array_record."
    )


@contextlib.contextmanager
def _reading(builder, split: str) -> Iterator[None]:
    """Raises ValueError for whatever goes wrong within it.

    Texts of splits that TFDS cannot read, files that are damaged.
    """
    try:
        yield
    except Exception as error:
        raise ValueError(
            f"dataset {builder.name!r}, split {split!r} cannot be read: "
            f"{_first_line(error)}"
        ) from error


def _look_at_labels(builder, examples) -> None:
    """Raises ValueError if some of a set that stays in files has no labels.

    As the test split of a benchmark: there none has.
    """
    with _reading(builder, examples.split):
        labels = [examples.unpack(row)[1] for row in examples.sample()]
    _refuse_unlabelled(builder, examples.split, labels)


def _refuse_unlabelled(builder, split: str, labels) -> None:
    if any(min(row, default=0) < 0 for row in labels):
        raise ValueError(
            f"dataset {builder.name!r}, split {split!r} has images without a "
            "label: name another with --train_split or --eval_split."
        )


def _read_all(
    builder, stream, rule: labelling.Rule | None = None
) -> examples_lib.Examples:
    """Returns a set in files as one in memory."""
    contents, labels = [], []
    with _reading(builder, stream.split):
        for row in stream.rows():
            if rule is None:
                content, found = stream.unpack(row)
            else:
                content, stored = stream.unpack_features(row, rule.features)
                found = [rule.apply(stored)]
            contents.append(content)
            labels.append(found)
    _refuse_unlabelled(builder, stream.split, labels)
    if stream.is_multi_label:
        most = max(1, *map(len, labels))
        labels = [row + [-1] * (most - len(row)) for row in labels]
    else:
        labels = [row[0] for row in labels]
    return encoded.examples(
        names=[f"{stream.split}/{index}" for index in range(len(contents))],
        contents=contents,
        labels=labels,
        class_names=stream.class_names,
    )
