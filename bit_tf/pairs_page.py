"""Pairs of pictures -> one page that shows them side by side."""

import dataclasses
import importlib.resources
import pathlib
from collections.abc import Sequence

import bit_tf
from bit_tf import pages
from bit_tf import workdir

SHOWN = 200


@dataclasses.dataclass(frozen=True)
class Row:
    """A pair.

    Args:
        where: it was found.
        first: path of the one picture.
        second: path of the other.
        similarity: 1 for equal files.
        how: in words.
        feature_similarity: cosine of what a network makes of them; None where
            none was asked.
    """

    where: str
    first: str
    second: str
    similarity: float
    how: str
    feature_similarity: float | None = None


def write(
    path: pathlib.Path,
    rows: Sequence[Row],
    facts: Sequence[tuple[str, str]],
) -> None:
    """Writes the page.

    Args:
        path: of it.
        rows: all pairs; of each place the SHOWN least alike are shown, which
            are those to look at.
        facts: (name, value), for the table at the top.
    """
    places = dict.fromkeys(row.where for row in rows)
    groups = []
    for where in places:
        own = [row for row in rows if row.where == where]
        own.sort(key=lambda row: row.similarity)
        shown = [
            {
                "row": row,
                "images": [
                    (name, pages.thumbnail(name))
                    for name in (row.first, row.second)
                ],
            }
            for row in own[:SHOWN]
        ]
        groups.append((where, len(own), shown))
    source = importlib.resources.files("bit_tf") / "assets" / "pairs.html.j2"
    page = pages.template(source.read_text()).render(
        facts=facts,
        groups=groups,
        total=len(rows),
        version=bit_tf.__version__,
    )
    workdir.write_text(path, page)
