"""Makes a TensorFlow Datasets set of ImageNet-21k's archive.

python -m bit_tf.prepare --archive=fall11_whole.tar --data_dir=DIR
"""

import pathlib

from absl import flags

from bit_tf import importing
from bit_tf import program

_ARCHIVE = flags.DEFINE_string(
    "archive",
    None,
    "fall11_whole.tar of ImageNet, or a tar with a part of its synsets.",
)
_DATA_DIR = flags.DEFINE_string(
    "data_dir", None, "Where TensorFlow Datasets keeps its sets."
)
_FILE_FORMAT = flags.DEFINE_enum(
    "file_format",
    "array_record",
    ["array_record", "tfrecord"],
    "array_record: any example can be read, so that every epoch is a "
    "permutation of all. tfrecord: read in order, through a buffer.",
)


def main() -> None:
    archive = pathlib.Path(_ARCHIVE.value).expanduser()
    if not archive.is_file():
        raise ValueError(f"archive {archive} is not there, or is not a file.")
    with importing.quickly():
        from bit_tf import imagenet21k

    builder = imagenet21k.build(
        archive,
        data_dir=_DATA_DIR.value,
        file_format=_FILE_FORMAT.value,
        log=program.say,
    )
    split = builder.info.splits["full"]
    where = f" --data_dir={_DATA_DIR.value}" if _DATA_DIR.value else ""
    program.say(
        f"{split.num_examples:,} images in {builder.data_path}\n"
        f"next          {program.python()} -m bit_tf.train "
        f"--flagfile=experiments/upstream/bit_m.flags{where} --workdir=DIR"
    )


if __name__ == "__main__":
    flags.mark_flags_as_required(["archive"])
    program.run(main)
