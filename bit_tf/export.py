"""Writes the SavedModel of a run, or of a weights file.

python -m bit_tf.export --workdir=DIR [--output=PATH]
python -m bit_tf.export --init_from=FILE --output=PATH
"""

import pathlib

from absl import flags

from bit_tf import labels
from bit_tf import program
from bit_tf import workdir as workdir_lib

_WORKDIR = flags.DEFINE_string(
    "workdir", None, "Directory of a run that has ended."
)
_INIT_FROM = flags.DEFINE_string(
    "init_from",
    None,
    "Instead of --workdir: a published name such as BiT-M-R50x1-ILSVRC2012, "
    "or a file of any format that bit_tf.convert reads.",
)
_OUTPUT = flags.DEFINE_string(
    "output",
    None,
    "Directory to write; replaced if it is a SavedModel. Default: "
    "saved_model/ in the workdir.",
)
_LABELS = flags.DEFINE_string(
    "labels",
    None,
    "With --init_from: ilsvrc2012, imagenet21k, or a text file with a class "
    "name per line. Default: those of a published file by its name, else "
    "numbers.",
)
_IMAGE_SIZE = flags.DEFINE_integer(
    "image_size",
    None,
    "With --init_from: side that images should be resized to, pixels. Default: "
    "that of a published file by its name, else 224.",
    lower_bound=1,
    upper_bound=2**15,
)
program.define_mirror()


def main() -> None:
    if (_WORKDIR.value is None) == (_INIT_FROM.value is None):
        raise ValueError(
            "give either --workdir, of a run, or --init_from, weights."
        )
    if _INIT_FROM.value is not None:
        if _OUTPUT.value is None:
            raise ValueError("--init_from needs --output, what to write.")
        output = _free(pathlib.Path(_OUTPUT.value))
        _export_weights(_INIT_FROM.value, output)
    else:
        for flag in (_LABELS, _IMAGE_SIZE):
            if flag.present:
                raise ValueError(
                    f"--{flag.name} is for --init_from: a run knows its own."
                )
        workdir = workdir_lib.Workdir(_WORKDIR.value)
        output = _free(pathlib.Path(_OUTPUT.value or workdir.saved_model))
        with program.quiet_import():
            from bit_tf import saved_model

        saved_model.export_run(workdir, output)
    program.say(f"SavedModel    {output}")


def _free(output: pathlib.Path) -> pathlib.Path:
    output = output.expanduser()
    if output.exists() and not (output / "saved_model.pb").exists():
        raise ValueError(
            f"output {output} exists and is not a SavedModel: give another "
            "--output."
        )
    return output


def _export_weights(source: str, output: pathlib.Path) -> None:
    class_names = None
    if _LABELS.value in ("ilsvrc2012", "imagenet21k"):
        class_names = labels.class_names(_LABELS.value)
    elif _LABELS.value is not None:
        file = pathlib.Path(_LABELS.value).expanduser()
        class_names = file.read_text(encoding="utf-8").splitlines()
    path = program.weights_file(source)
    from bit_tf import saved_model

    saved_model.export_weights(
        path, output, class_names=class_names, image_size=_IMAGE_SIZE.value
    )


if __name__ == "__main__":
    program.run(main)
