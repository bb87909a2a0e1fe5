"""Text in CSV that a spreadsheet must not take for a formula."""

_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def of_text(text: str) -> str:
    """Returns it, with an apostrophe in front where it looks like a formula."""
    return f"'{text}" if text.startswith(_FORMULA) else text


def of_file(name: str) -> str:
    """Returns the name of a file, still usable as such."""
    return f"./{name}" if name.startswith(_FORMULA) else name
