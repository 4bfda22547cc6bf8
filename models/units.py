"""The units of an axis, and how others write them."""

import re

UNITS = ("2th_deg", "q_nm^-1", "q_A^-1")


def unit_of(name: str) -> str | None:
    """Return our name of the unit in an axis' name, such as ``q (1/A)``; None when it has none."""
    if name in UNITS:
        return name
    plain = re.sub(r"[\s_*{}()\[\]]", "", name.lower()).replace("å", "a")
    if re.search(r"(2|two)-?(th|theta|θ)", plain) and "rad" not in plain:
        return "2th_deg"
    if plain.startswith("q"):
        if re.search(r"1/a|a(ngstrom)?\^?-1", plain):
            return "q_A^-1"
        if re.search(r"1/nm|nm\^?-1", plain):
            return "q_nm^-1"
    return None
