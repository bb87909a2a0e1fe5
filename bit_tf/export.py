"""Writes the SavedModel of a run.

python -m bit_tf.export --workdir=DIR --output=PATH
"""

import pathlib

from absl import flags

from bit_tf import program
from bit_tf import workdir as workdir_lib

_WORKDIR = flags.DEFINE_string(
    "workdir", None, "Directory of a run that has ended."
)
_OUTPUT = flags.DEFINE_string(
    "output",
    None,
    "Directory to write; replaced if it is a SavedModel. Default: "
    "saved_model/ in the workdir.",
)


def main() -> None:
    workdir = workdir_lib.Workdir(_WORKDIR.value)
    output = pathlib.Path(_OUTPUT.value or workdir.saved_model).expanduser()
    if output.exists() and not (output / "saved_model.pb").exists():
        raise ValueError(
            f"output {output} exists and is not a SavedModel: give another "
            "--output."
        )
    with program.quiet_import():
        from bit_tf import saved_model

    saved_model.export_run(workdir, output)
    print(f"SavedModel    {output}")


if __name__ == "__main__":
    flags.mark_flag_as_required("workdir")
    program.run(main)
