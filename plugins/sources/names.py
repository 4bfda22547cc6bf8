"""Names of sources and keys: those that a pattern names, and how they are listed in an error."""

import re
from collections.abc import Iterable

MOST = 12  # names in an error
LONGEST = 100


def matching(pattern: str, names: Iterable[str]) -> list[str]:
    """Return those of `names` that `pattern` names, ``*`` standing for anything.

    Numbers in them count as numbers: ``2CH0`` comes before ``10CH0``.
    """
    parts = map(re.escape, pattern.split("*"))
    whole = re.compile(".*".join(parts))
    return sorted((name for name in names if whole.fullmatch(name)), key=_natural)


def listed(names: Iterable[str]) -> str:
    """Return `names` in a line, as many as one can read."""
    ordered = sorted(names, key=_natural)
    said = ", ".join(name[:LONGEST] for name in ordered[:MOST]) or "none"
    return said if len(ordered) <= MOST else f"{said} and {len(ordered) - MOST} more"


def _natural(name: str) -> list[tuple[int, str]]:
    """Return a key that sorts numbers by size; a number counts as its length, then its digits."""
    return [
        (len(part.lstrip("0")), part) if part.isdigit() else (0, part)
        for part in re.split(r"([0-9]+)", name)
    ]
