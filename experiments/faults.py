"""Prints the table of the fault campaign, and fails where a fault was not met.

python experiments/faults.py runs/faults.jsonl
"""

import json
import pathlib
import sys

KNOWN = ("row", "demanded", "faults", "held", "seed", "seconds")


def table(rows: list[dict]) -> str:
    lines = [
        "| Faults | Demanded | Made | Held | Seen | Seconds |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        seen = ", ".join(
            f"{name.replace('_', ' ')} {value:,.6g}"
            for name, value in row.items()
            if name not in KNOWN
        )
        lines.append(
            f"| {row['row']} | {row['demanded']} | {row['faults']:,} | "
            f"{row['held']:,} | {seen} | {row['seconds']:,} |"
        )
    made, held, seconds = (
        sum(row[name] for row in rows) for name in ("faults", "held", "seconds")
    )
    lines.append(f"| All | | {made:,} | {held:,} | | {seconds:,} |")
    return "\n".join(lines)


def main(path: str) -> None:
    rows = [json.loads(x) for x in pathlib.Path(path).read_text().splitlines()]
    rows.sort(key=_place)
    print(table(rows))
    if any(row["held"] < row["faults"] for row in rows):
        sys.exit(1)


def _place(row: dict) -> tuple[int, str]:
    return int(row["row"].split()[0].removeprefix("R")), row["row"]


if __name__ == "__main__":
    main(*sys.argv[1:])
