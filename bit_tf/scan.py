"""Many image files: each is checked before anything trains on it."""

import concurrent.futures
import dataclasses
import hashlib
import json
import os
import pathlib
from collections.abc import Callable
from collections.abc import Sequence

import numpy as np

import bit_tf
from bit_tf import image_file
from bit_tf import workdir


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scan:
    """What a look at every file has found.

    Args:
        good: file -> what is known of the image.
        bad: (name relative to the root, what is wrong), in order.
    """

    good: dict[str, image_file.Info]
    bad: list[tuple[str, str]]

    def of(self, files: Sequence[str]) -> dict:
        """Returns what `Examples` wants to know of these (good) files."""
        infos = [self.good[file] for file in files]
        return {
            "sizes": np.array([(i.height, i.width) for i in infos], np.int64),
            "converted": np.array([i.converted for i in infos], bool),
            "left_out": tuple(self.bad),
        }

    def remarks(self) -> list[str]:
        """Returns what to say about files that are left out."""
        if not self.bad:
            return []
        name, reason = self.bad[0]
        return [
            f"{len(self.bad)} files cannot be used and are left out, "
            f"{name} ({reason}) first"
        ]


def scan(
    files: Sequence[str],
    *,
    root: str,
    reading: image_file.Reading,
    cache: str | os.PathLike | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Scan:
    """Decodes every file once.

    A broken one is then named at once and not after an hour.

    Args:
        files: absolute paths.
        root: the folder that they are in, for their names.
        reading: how they will be read.
        cache: directory for what was found, so that files that have not
            changed since are not looked at again; None for none.
        progress: called with (files checked, files in all).

    Raises:
        ValueError: `reading.on_bad` is "fail" and files cannot be used.
    """
    kept = _Cache(cache, root, reading)
    good, bad = {}, []
    with image_file.many(), concurrent.futures.ThreadPoolExecutor() as pool:
        results = pool.map(
            lambda file: kept.find(file) or image_file.inspect(file, reading),
            files,
        )
        for done, (file, result) in enumerate(
            zip(files, results, strict=True), start=1
        ):
            if isinstance(result, image_file.Info):
                good[file] = result
            else:
                name = os.fsencode(os.path.relpath(file, root))
                bad.append((name.decode(errors="replace"), result))
            progress(done, len(files))
    kept.keep(good)
    refuse(bad, root=root, total=len(files), reading=reading)
    return Scan(good=good, bad=bad)


def refuse(
    bad: Sequence[tuple[str, str]],
    *,
    root: str,
    total: int,
    reading: image_file.Reading,
) -> None:
    """Raises ValueError if there are bad images and they are not skipped."""
    if bad and reading.on_bad == "fail":
        shown = ", ".join(f"{name} ({reason})" for name, reason in bad[:3])
        raise ValueError(
            f"{root}: {len(bad)} of {total} files cannot be used: {shown}"
            f"{', ...' if len(bad) > 3 else ''}. Convert or remove them, or "
            "give --on_bad_image=skip."
        )


class _Cache:
    """Results of an earlier scan of the same folder, for unchanged files."""

    def __init__(
        self,
        directory: str | os.PathLike | None,
        root: str,
        reading: image_file.Reading,
    ):
        self._file = None
        self._rows: dict[str, list] = {}
        if directory is None:
            return
        # What was found depends on all of this.
        text = json.dumps(
            [
                os.path.abspath(root),
                reading.apply_exif,
                reading.max_pixels,
                bit_tf.__version__,
            ]
        )
        name = hashlib.sha256(text.encode("utf-8", "surrogateescape"))
        self._file = pathlib.Path(directory) / f"{name.hexdigest()[:24]}.json"
        try:
            rows = json.loads(self._file.read_text())
        except (OSError, ValueError):
            # None yet, or not ours; then it is made anew.
            return
        if isinstance(rows, dict):
            self._rows = rows

    def find(self, file: str) -> image_file.Info | None:
        row = self._rows.get(file)
        try:
            if row and row[0] == _state(file):
                return image_file.Info(*row[1])
        except (OSError, TypeError, IndexError):
            pass
        return None

    def keep(self, good: dict[str, image_file.Info]) -> None:
        if self._file is None:
            return
        rows = {}
        try:
            for file, info in good.items():
                rows[file] = [_state(file), dataclasses.astuple(info)]
            self._file.parent.mkdir(parents=True, exist_ok=True)
            workdir.write_text(self._file, json.dumps(rows))
        except OSError:
            # A home that is read-only or full: the next scan takes as long.
            return


def _state(file: str) -> list[int]:
    """Returns what changes when the file does."""
    status = os.stat(file)
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns]
