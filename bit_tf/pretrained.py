"""Published weights on this machine: fetched once, kept, verified."""

import dataclasses
import pathlib
from collections.abc import Callable
from collections.abc import Mapping

from bit_tf import download
from bit_tf import layout
from bit_tf import weights_file
from bit_tf import zoo

MIRROR_VARIABLE = "BIT_TF_MIRROR"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Start:
    """A network, and the weights that it starts from.

    Args:
        model_name: e.g. "R50x1".
        init_from: file with weights; None for fresh ones.
    """

    model_name: str
    init_from: pathlib.Path | None = None


def cache_directory(environment: Mapping[str, str]) -> pathlib.Path:
    """Returns $KERAS_HOME/models/bit_tf, where Keras keeps its weights too."""
    home = environment.get("KERAS_HOME") or pathlib.Path("~", ".keras")
    return pathlib.Path(home).expanduser() / "models" / "bit_tf"


def fetch(
    entry: zoo.Entry,
    *,
    cache: pathlib.Path,
    mirror: str | None = None,
    suffix: str = ".npz",
    log: Callable[[str], None] = print,
) -> pathlib.Path:
    """Returns where published weights are, after fetching what is missing.

    The shipped ones are where the package is.

    Args:
        entry: what to fetch.
        cache: see `cache_directory`.
        mirror: address that has the same files under the same names,
            https://, http:// or gs://; None for where they were published.
        suffix: the format, one of the entry's.
        log: told of what is fetched and from where.

    Raises:
        download.UnreachableError: there is no way to the server; the text
            says where to put the file by hand.
        ValueError: the server does not have it or breaks off, or the file is
            not what it should be.
    """
    if entry.is_shipped:
        entry.check_format(suffix)
        return entry.asset
    url = download.web_url(entry.url(suffix, base=mirror or zoo.BASE_URL))
    path = cache / f"{entry.name}{suffix}"
    if not path.exists():
        log(f"fetching {url}, about {entry.size / 1e6:,.0f} MB, to {path}")
    try:
        return download.fetch(
            url, path, check=lambda file: _check(file, entry), log=log
        )
    except download.UnreachableError as error:
        raise download.UnreachableError(
            f"no way to {url} ({error}). Fetch it on another machine and put "
            f"it at {path}, or name a mirror with --mirror or "
            f"${MIRROR_VARIABLE}."
        ) from error


def resolve(
    source: str,
    *,
    cache: pathlib.Path,
    mirror: str | None = None,
    log: Callable[[str], None] = print,
) -> pathlib.Path:
    """Returns the file that a path or a published name stands for.

    Args:
        source: a path; or "BiT-M-R50x1", with or without ".npz" or ".h5".
        cache: see `cache_directory`.
        mirror: see `fetch`.
        log: see `fetch`.

    Raises:
        ValueError: see `fetch`; or there is neither such a file nor such a
            name.
    """
    path = pathlib.Path(source).expanduser()
    if path.exists():
        return path
    suffix = path.suffix if path.suffix in (".npz", ".h5") else ".npz"
    name = source.removesuffix(suffix)
    if name in zoo.ENTRIES or not path.suffix:
        return fetch(
            zoo.find(name), cache=cache, mirror=mirror, suffix=suffix, log=log
        )
    raise ValueError(
        f"weights {source} do not exist: give {weights_file.READABLE}; or a "
        "published name, see python -m bit_tf.convert --list"
    )


def _check(path: pathlib.Path, entry: zoo.Entry) -> None:
    with weights_file.opened(path, expected=entry.architecture) as stored:
        if stored.num_classes != entry.num_classes:
            raise ValueError(
                f"tensor {layout.HEAD_BIAS} has {stored.num_classes} classes, "
                f"{entry.name} has {entry.num_classes}."
            )
