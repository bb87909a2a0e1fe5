"""Converts weights between the formats of BiT's implementations.

python -m bit_tf.convert SRC DST
python -m bit_tf.convert --list
"""

import pathlib

from absl import flags

from bit_tf import importing
from bit_tf import program
from bit_tf import weights_file
from bit_tf import zoo

_LIST = flags.DEFINE_bool("list", False, "Print the published weights.")
_HEADLESS = flags.DEFINE_bool(
    "headless", False, "Leave the head out: features instead of classes."
)
_DTYPE = flags.DEFINE_enum(
    "dtype",
    "float32",
    ["float32", "float16"],
    "Of the numbers in DST. float16, for .npz alone, is half the size.",
)
program.define_mirror()
USAGE = (
    "give SRC and DST, for example BiT-M-R50x1 BiT-M-R50x1.safetensors, or "
    "--list."
)


def main(source: str | None = None, target: str | None = None) -> None:
    if _LIST.value:
        if source:
            raise ValueError("--list takes no SRC and DST.")
        for flag in (_DTYPE, _HEADLESS):
            if flag.present:
                raise ValueError(f"--list takes no --{flag.name}: drop it.")
        _print_list()
        return
    if source is None or target is None:
        raise ValueError(USAGE)
    path = pathlib.Path(target).expanduser()
    weights_file.check_target(path)
    if _DTYPE.value != "float32" and weights_file.format_of(path) != ".npz":
        raise ValueError(f"--dtype={_DTYPE.value} is for .npz, not for {path}.")
    file = program.weights_file(source)
    with weights_file.opened(file):
        pass  # What cannot be read is refused before TensorFlow is imported.
    with importing.quickly():
        from bit_tf import conversion

    conversion.convert(
        file,
        path,
        headless=_HEADLESS.value,
        dtype=_DTYPE.value,
        log=program.say,
    )


def _print_list() -> None:
    rows = [("name", "classes", "head", "pixels", "MB", "formats", "")]
    for entry in zoo.ENTRIES.values():
        rows.append(
            (
                entry.name,
                str(entry.num_classes),
                entry.head,
                str(entry.resolution),
                f"{entry.size / 1e6:.0f}",
                " ".join(entry.formats),
                entry.remark,
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = zip(row, widths, strict=True)
        line = "  ".join(cell.ljust(width) for cell, width in cells)
        print(line.rstrip())


if __name__ == "__main__":
    program.run(main, arguments=2)
