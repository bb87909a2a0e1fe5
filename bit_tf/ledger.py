"""Results of many runs, a line each; what is there is not computed again."""

import json
import pathlib
from collections.abc import Sequence

from bit_tf import workdir


class Ledger:
    """A file of rows, and what they are rows of.

    Args:
        path: of the file, JSON lines; the first says what it is about.
        about: JSON types; everything that decides a row beside its key.
        keys: the fields of a row by which it is known.

    Raises:
        ValueError: the file holds results of something else.
    """

    def __init__(self, path: pathlib.Path, *, about: dict, keys: Sequence[str]):
        self._path = path
        self._keys = tuple(keys)
        self.rows: list[dict] = []
        about = json.loads(json.dumps({"about": about}))
        if path.exists():
            first, self.rows = _read(path)
            if first != about:
                raise ValueError(
                    f"{path} holds results of other settings "
                    f"({_difference(first, about)}): give another --output."
                )
        path.parent.mkdir(parents=True, exist_ok=True)
        # Also drops a last line that was cut off.
        lines = [about, *self.rows]
        workdir.write_text(
            path, "".join(json.dumps(line) + "\n" for line in lines)
        )

    def find(self, **key) -> dict | None:
        """Returns the row of this key; None if there is none yet."""
        wanted = [key[name] for name in self._keys]
        for row in self.rows:
            if [row[name] for name in self._keys] == wanted:
                return row
        return None

    def add(self, row: dict) -> None:
        """Writes a row."""
        self.rows.append(json.loads(json.dumps(row)))
        with open(self._path, "a") as file:
            file.write(json.dumps(row) + "\n")


def _read(path: pathlib.Path) -> tuple[dict | None, list[dict]]:
    found = []
    for line in path.read_text().splitlines():
        try:
            found.append(json.loads(line))
        except json.JSONDecodeError:
            # Only the last can be cut off; its result comes again.
            break
    return (found[0], found[1:]) if found else (None, [])


def _difference(old, new: dict) -> str:
    if not isinstance(old, dict) or "about" not in old:
        return "or is no file of results"
    for name, value in new["about"].items():
        if old["about"].get(name) != value:
            was = json.dumps(old["about"].get(name))[:60]
            return f"{name} was {was}, now {json.dumps(value)[:60]}"
    return "settings are missing"
