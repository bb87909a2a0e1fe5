"""What all programs share: environment, flags, and errors in one line."""

import contextlib
import errno
import os
import pathlib
import re
import shutil
import signal
import sys
import traceback
from collections.abc import Callable
from collections.abc import Iterator

from absl import app
from absl import flags
from absl import logging

from bit_tf import architecture
from bit_tf import cluster as cluster_lib
from bit_tf import image_file
from bit_tf import interruption
from bit_tf import pretrained
from bit_tf import weights_file as weights_file_lib
from bit_tf import zoo

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_PACKAGE = pathlib.Path(__file__).parent
# Where in a graph it happened, which TensorFlow says around what happened, and
# again for every device that waited for it.
_PLACE = re.compile(
    r"\{\{(?:function_)?node [^}]*\}\} "
    r"|Error in user-defined function .*? Iterator::\S+: "
    r"|Graph execution error: "
    r"|Detected at node .*?<stack traces unavailable> "
    r"|\d+ root error\(s\) found\. \(0\) [A-Z_]+: "
    r"|\s*\[\[\{\{(?:function_)?node .*"
)


def run(main: Callable[..., None], *, arguments: int | None = 0) -> None:
    """Parses the flags and calls `main`; does not return.

    A mistake of the user's, an error raised by this package or by the
    operating system, becomes one line and exit code 1. Anything else is our
    mistake and keeps its traceback.

    Args:
        main: called with the arguments that are no flags.
        arguments: how many of them there may be; None for any number.
    """
    # Before TensorFlow is imported. oneDNN makes the backward convolutions
    # 1.4 times faster on processors without AVX512_VNNI, where it is off.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    backend = os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    if backend != "tensorflow":
        _fail(
            f"KERAS_BACKEND={backend}: bit_tf runs on TensorFlow; unset it, or "
            "set it to tensorflow."
        )

    def guarded(argv):
        if arguments is not None and len(argv) > 1 + arguments:
            _fail(
                f"unexpected argument {argv[1 + arguments]!r}: flags look like "
                "--name=value; see --help"
            )
        if not flags.FLAGS["verbosity"].present:
            # TensorFlow logs every file it writes; --verbosity=0 shows them.
            logging.set_verbosity(logging.WARNING)
        try:
            main(*argv[1:])
        except KeyboardInterrupt:
            print("\nstopped; the same command continues", file=sys.stderr)
            sys.exit(130)
        except interruption.StoppedError as error:
            print(f"{error}; the same command continues", file=sys.stderr)
            sys.exit(128 + (error.number or signal.SIGTERM))
        except Exception as error:
            text = _explain(error)
            if text is None:
                raise
            _fail(text, getattr(error, "exit_code", 1))

    app.run(guarded, flags_parser=_parse)


def define_only_check_flags() -> flags.FlagHolder[bool]:
    """Defines --only_check_flags, for programs that can do it.

    absl's own ends as soon as it is read, before it has seen the others.
    """
    app.define_help_flags()
    delattr(flags.FLAGS, "only_check_flags")
    return flags.DEFINE_bool(
        "only_check_flags",
        False,
        "Look at the flags and the images, show the recipe, and end, without "
        "weights: nothing is trained, and nothing written into the workdir.",
    )


def define_mirror() -> None:
    """Defines --mirror, for programs that fetch published weights."""
    flags.DEFINE_string(
        "mirror",
        None,
        "Address that has the published weights under the same names, "
        "https://, http:// or gs://. Default: $BIT_TF_MIRROR, else where they "
        "were published.",
    )


def weights_file(source: str) -> pathlib.Path:
    """Returns the file that --init_from or a published name stands for.

    What is not on this machine is fetched.

    Raises:
        ValueError: see `pretrained.resolve`.
    """
    return pretrained.resolve(
        source,
        cache=pretrained.cache_directory(os.environ),
        mirror=flags.FLAGS.mirror or os.environ.get(pretrained.MIRROR_VARIABLE),
        log=say,
    )


def define_data_dir() -> flags.FlagHolder:
    """Defines --data_dir, for programs that read TensorFlow Datasets."""
    return flags.DEFINE_string(
        "data_dir", None, "Where TensorFlow Datasets keeps its sets."
    )


def define_max_image_pixels() -> flags.FlagHolder:
    """Defines --max_image_pixels, for programs that read image files."""
    return flags.DEFINE_integer(
        "max_image_pixels",
        image_file.MAX_PIXELS,
        "Images with more are refused, before they are decoded.",
        lower_bound=1,
        upper_bound=image_file.MOST_PIXELS,
    )


def starting_point(text: str) -> pretrained.Start:
    """Returns what a training starts from.

    Args:
        text: a published name, the workdir of a run, a weights file, or a
            network with fresh weights such as R26x0.5.

    Raises:
        ValueError: it is none of them.
    """
    if text.startswith("BiT-") or text in zoo.ENTRIES:
        return pretrained.Start(
            model_name=zoo.find(text).architecture,
            init_from=weights_file(text),
        )
    path = pathlib.Path(text).expanduser()
    if (path / "recipe.json").is_file():
        path = path / "weights.npz"
        if not path.is_file():
            raise ValueError(
                f"the run in {text} has not ended: it has no weights.npz."
            )
    elif not path.exists():
        architecture.parse_name(text)
        return pretrained.Start(model_name=text)
    with weights_file_lib.opened(path) as stored:
        return pretrained.Start(model_name=stored.architecture, init_from=path)


def named(text: str) -> tuple[str, str]:
    """Reads "NAME=PATH", or a path or name that is called as it is given."""
    name, equals, path = text.partition("=")
    if pathlib.Path(text).expanduser().exists():
        # A path may have one in it.
        return text, text
    return (name, path) if equals else (text, text)


def define_trust_saved_model() -> None:
    """Defines --trust_saved_model, which `model_path` asks for."""
    flags.DEFINE_bool(
        "trust_saved_model",
        False,
        "Run a SavedModel that --model names: it is a program, and may read "
        "and write files. Not needed for the workdir of a run, or for weights.",
    )


def model_path(source: str) -> pathlib.Path:
    """Returns where the model is that --model stands for.

    Raises:
        ValueError: see `weights_file`; or it is a SavedModel, and nobody said
            that it may run.
    """
    path = pathlib.Path(source).expanduser()
    if (path / "recipe.json").is_file():
        return path
    if (path / "saved_model.pb").is_file():
        if not flags.FLAGS.trust_saved_model:
            raise ValueError(
                f"{path} is a SavedModel: that is a program, which may read "
                "and write files. Give --trust_saved_model if you know who "
                "made it."
            )
        return path
    return weights_file(source)


def say(text: str) -> None:
    """Prints a line now, also into a pipe."""
    print(text, flush=True)


def _parse(argv):
    # Flags may stand after arguments.
    flags.FLAGS.set_gnu_getopt(True)
    try:
        return flags.FLAGS(argv)
    except flags.Error as error:
        _fail(f"{' '.join(str(error).split())} See --help.")
    except OSError as error:
        _fail(f"flagfile: {error}. See --help.")


def _fail(text: str, code: int = 1) -> None:
    name = pathlib.Path(sys.argv[0]).stem
    print(f"bit_tf.{name}: {text}", file=sys.stderr)
    sys.exit(code)


def exit_at_once(text: str) -> None:
    """Says why and ends the process, whatever its other threads wait for."""
    try:
        _fail(text)
    except SystemExit as end:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(end.code)


@contextlib.contextmanager
def among_workers(cluster: cluster_lib.Cluster | None) -> Iterator[None]:
    """Ends this worker with a line that says whose end made it impossible.

    An orderly end would wait for those who are gone.

    Args:
        cluster: None for a process that is alone.
    """
    try:
        yield
    except Exception as error:
        is_tensorflow = any(
            "tensorflow" in c.__module__ for c in type(error).__mro__
        )
        if cluster is None or not is_tensorflow:
            raise
        gone = cluster.gone(str(error))
        if not gone:
            raise
        exit_at_once(cluster_lib.farewell(gone))


def _explain(error: Exception) -> str | None:
    """Returns one line for the user, or None if it is not the user's."""
    text = " ".join(str(error).split())
    if isinstance(error, OSError):
        if error.errno in _DISK_FULL:
            return (
                f"{os.strerror(error.errno)}"
                + (f": {error.filename}" if error.filename else "")
                + "; what was saved before is whole. Make room and give the "
                "same command, which continues."
            )
        return text
    if any("tensorflow" in c.__module__ for c in type(error).__mro__):
        return _explain_tensorflow(text)
    if isinstance(error, ValueError):
        raised_in = traceback.extract_tb(error.__traceback__)[-1].filename
        if _PACKAGE in pathlib.Path(raised_in).parents:
            return text
    return None


def _explain_tensorflow(text: str) -> str | None:
    """Returns one line for errors that are the machine's, not ours."""
    for code in _DISK_FULL:
        if os.strerror(code) in text:
            return (
                f"{os.strerror(code)}; what was saved before is whole. Make "
                "room and give the same command, which continues."
            )
    if "OOM when allocating" in text or "out of memory" in text.lower():
        return (
            "out of memory; what was saved before is whole. Lower "
            "--batch_size or --crop, or take a smaller --model."
        )
    for code in (errno.ENOENT, errno.EACCES, errno.EPERM, errno.EROFS):
        if os.strerror(code) in text or "is not a directory" in text:
            return _PLACE.sub("", text)[:400]
    return None


def python() -> str:
    """Returns how to call this Python from here."""
    found = shutil.which("python")
    if found and os.path.samefile(found, sys.executable):
        return "python"
    return min(sys.executable, os.path.relpath(sys.executable), key=len)


def given_flags(*of: flags.FlagHolder) -> list[str]:
    """Returns the flags that were set, of the modules that defined `of`.

    Each as text that repeats it, "--name=value".
    """
    values = flags.FLAGS
    return sorted(
        flag.serialize()
        for holder in of
        for flag in values.get_flags_for_module(
            values.find_module_defining_flag(holder.name)
        )
        if flag.present and not flag.using_default_value
    )
