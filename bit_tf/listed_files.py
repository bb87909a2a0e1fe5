"""Files that paths, folders and patterns stand for."""

import glob
import os
from collections.abc import Iterable
from collections.abc import Iterator

# What systems leave in folders.
IGNORED_FILES = ("thumbs.db", "desktop.ini")


def is_image_name(name: str) -> bool:
    """Returns whether a file may be an image, and no system's own."""
    return not name.startswith(".") and name.lower() not in IGNORED_FILES


def expand(given: Iterable[str]) -> Iterator[str]:
    """Yields the files that paths, folders and patterns stand for.

    Folders are searched to their depth, by name. A path that is neither is
    passed on: what is wrong with it is told in its place.
    """
    for text in given:
        if os.path.isdir(text):
            yield from _within(text)
        elif os.path.lexists(text) or not glob.has_magic(text):
            yield text
        else:
            # Without a match the pattern itself is the file that is missing.
            yield from sorted(glob.glob(text, recursive=True)) or [text]


def _within(root: str) -> Iterator[str]:
    for directory, folders, files in os.walk(root):
        folders.sort()
        folders[:] = [name for name in folders if not name.startswith(".")]
        for file in sorted(files):
            if is_image_name(file):
                yield os.path.join(directory, file)
