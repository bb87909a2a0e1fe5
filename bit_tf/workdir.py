"""What a run leaves on disk, and how it gets there whole or not at all."""

import contextlib
import fcntl
import hashlib
import json
import os
import pathlib
import re
import shutil
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence

MANIFEST = "MANIFEST.json"
# Only names of our own making: the directory may be anybody's.
_LEFTOVER = re.compile(
    r"\.(recipe\.json|run\.flags|metrics\.jsonl|weights\.npz|evaluation\.json|"
    r"report\.html|saved_model|step-\d{8,})\.\d+\.(tmp|old)"
)


class Workdir:
    """Names and atomic writes of one run's directory.

    run.flags      the flags that repeat the run
    recipe.json    recipe, model, data and seeds: what the run is
    metrics.jsonl  one row per log line and per evaluation
    tensorboard/   the same rows as TensorBoard events
    checkpoints/   state to continue from, one directory per step
    weights.npz    final weights, published layout
    evaluation.json, saved_model/, report.html
    """

    def __init__(self, path: str | os.PathLike):
        self.path = pathlib.Path(path).expanduser()
        self.flags = self.path / "run.flags"
        self.recipe = self.path / "recipe.json"
        self.metrics = self.path / "metrics.jsonl"
        self.tensorboard = self.path / "tensorboard"
        self.checkpoints = self.path / "checkpoints"
        self.weights = self.path / "weights.npz"
        self.evaluation = self.path / "evaluation.json"
        self.saved_model = self.path / "saved_model"
        self.report = self.path / "report.html"

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Creates the directory and holds it for this process alone.

        The lock ends with the process, however it ends.

        Raises:
            ValueError: another process trains in this directory.
        """
        if self.path.exists() and not self.path.is_dir():
            raise ValueError(
                f"workdir {self.path} is a file: give a directory, new or of "
                "an earlier run."
            )
        self.path.mkdir(parents=True, exist_ok=True)
        with open(self.path / ".lock", "w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise ValueError(
                    f"workdir {self.path} is in use by another process: wait "
                    "for it, or give another --workdir."
                ) from error
            yield

    def claim(self, identity: dict, flags: Sequence[str]) -> None:
        """Writes what this run is, or checks that it is the run found here.

        Args:
            identity: JSON types; everything that decides the final weights.
            flags: what repeats the run, kept as of its first start.

        Raises:
            ValueError: the directory holds results of another run, or of we
                do not know which.
        """
        identity = json.loads(json.dumps(identity))
        if self.recipe.exists():
            found = self.read_recipe()
            differing = [
                f"{key} was {_short(old)}, now {_short(new)}"
                for key, old, new in _differences(found, identity)
            ]
            if differing and self._has_results():
                shown = "; ".join(differing[:4])
                raise ValueError(
                    f"workdir {self.path} holds another run ({shown}): give "
                    "another --workdir, or the flags in its run.flags to "
                    "continue it."
                )
            if not differing and self.flags.exists():
                return
        elif self._has_results():
            raise ValueError(
                f"workdir {self.path} holds checkpoints or weights but no "
                "recipe.json that says of which run: give another --workdir."
            )
        # The flags first: a recipe.json says that they are there.
        write_text(self.flags, "\n".join(flags) + "\n")
        write_text(self.recipe, json.dumps(identity, indent=1) + "\n")

    def read_recipe(self) -> dict:
        """Returns what the run is.

        Raises:
            ValueError: recipe.json is not there, or not ours.
        """
        try:
            found = json.loads(self.recipe.read_text())
        except (OSError, ValueError) as error:
            raise ValueError(
                f"{self.path} is not the workdir of a run: its recipe.json "
                f"cannot be read ({error})."
            ) from error
        if not isinstance(found, dict) or "total_steps" not in found:
            raise ValueError(
                f"{self.path} is not the workdir of a run: its recipe.json is "
                "of something else."
            )
        return found

    def _has_results(self) -> bool:
        """Returns whether there is something here to lose."""
        return self.weights.exists() or any(self.checkpoints.glob("step-*"))

    def truncate_metrics(self, step: int, *, is_evaluated: bool) -> None:
        """Drops rows that are about to be written again.

        Args:
            step: up to which rows stay.
            is_evaluated: whether an evaluation of that very step stays.
        """
        rows = [
            row
            for row in read_metrics(self.path)
            if row["step"] < step
            or (row["step"] == step and (is_evaluated or "examples" not in row))
        ]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        write_text(self.metrics, text)

    def append_metrics(self, *rows: dict) -> None:
        """Adds rows, or none of them where they cannot be written.

        Raises:
            OSError: the disk; the file is what it was.
        """
        text = "".join(json.dumps(row) + "\n" for row in rows).encode()
        with open(self.metrics, "a+b", buffering=0) as file:
            before = file.seek(0, os.SEEK_END)
            if before:
                file.seek(before - 1)
                if file.read(1) != b"\n":
                    # Half a row, which could not be taken back.
                    text = b"\n" + text
            try:
                while text:
                    text = text[file.write(text) :]
            except OSError:
                file.truncate(before)
                raise


def read_metrics(path: str | os.PathLike) -> list[dict]:
    """Returns the rows of a run, without a last one that was cut off."""
    metrics = Workdir(path).metrics
    rows = []
    if metrics.exists():
        for line in metrics.read_text().splitlines():
            with contextlib.suppress(json.JSONDecodeError):
                rows.append(json.loads(line))
    return rows


def _short(value) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else text[:37] + "..."


def _differences(old: dict, new: dict, prefix: str = ""):
    for key in sorted(old.keys() | new.keys()):
        # Where a number comes from, or where the same images lie, is a
        # remark and not part of the run.
        if key in ("sources", "dataset"):
            continue
        a, b = old.get(key), new.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            yield from _differences(a, b, f"{prefix}{key}.")
        elif a != b:
            yield prefix + key, a, b


def write_text(path: pathlib.Path, text: str) -> None:
    """Writes a file that is complete or absent, never half."""
    write_file(path, lambda temporary: temporary.write_text(text))


def write_file(
    path: pathlib.Path, write: Callable[[pathlib.Path], object]
) -> None:
    """Lets `write` fill a temporary file, then renames it to `path`.

    On any error the temporary file goes and an older `path` stays.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        write(temporary)
        _sync(temporary)
        os.replace(temporary, path)
        _sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_directory(
    path: pathlib.Path, write: Callable[[pathlib.Path], object]
) -> None:
    """Lets `write` fill a temporary directory, then renames it to `path`.

    A manifest of checksums is added. A directory that stood at `path` is
    replaced. On any error the temporary directory goes and `path` stays.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    replaced = path.with_name(f".{path.name}.{os.getpid()}.old")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        write(temporary)
        manifest = {
            str(file.relative_to(temporary)): {
                "bytes": file.stat().st_size,
                "sha256": sha256(file),
            }
            for file in sorted(temporary.rglob("*"))
            if file.is_file()
        }
        (temporary / MANIFEST).write_text(json.dumps(manifest, indent=1))
        for file in temporary.rglob("*"):
            _sync(file)
        _sync(temporary)
        if path.exists():
            os.replace(path, replaced)
        os.replace(temporary, path)
        _sync(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(replaced, ignore_errors=True)


def verify_directory(path: pathlib.Path) -> bool:
    """Returns whether a directory holds exactly what its manifest says."""
    try:
        manifest = json.loads((path / MANIFEST).read_text())
        return all(
            (path / name).stat().st_size == entry["bytes"]
            and sha256(path / name) == entry["sha256"]
            for name, entry in manifest.items()
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def remove_leftovers(path: pathlib.Path) -> None:
    """Removes what a process that was killed left half-written in `path`.

    What was moved aside for something new that never took its place comes
    back.
    """
    for entry in sorted(path.iterdir()):
        found = _LEFTOVER.fullmatch(entry.name)
        if not found:
            continue
        if found[2] == "old" and not (path / found[1]).exists():
            os.replace(entry, path / found[1])
        else:
            _remove(entry)


def _remove(entry: pathlib.Path) -> None:
    if entry.is_dir():
        shutil.rmtree(entry, ignore_errors=True)
    else:
        entry.unlink(missing_ok=True)


def sha256(path: pathlib.Path) -> str:
    """Returns the checksum of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: pathlib.Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
