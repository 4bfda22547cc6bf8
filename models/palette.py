"""Colours of classes and names of axes, the same in all pictures."""

# Okabe and Ito (2008): told apart with any colour vision.
COLOURS = (
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#CC79A7",
    "#56B4E9",
    "#D55E00",
    "#F0E442",
    "#999999",
)
AXIS = {"2th_deg": "two theta (deg)", "q_nm^-1": "q (1/nm)", "q_A^-1": "q (1/A)"}
USUAL = ("before", "during", "after")  # have their colours also where one of them is missing


def colour_of(name: str, k: int) -> str:
    """Return the colour of class `name`, the `k`-th of its run."""
    return COLOURS[USUAL.index(name) if name in USUAL else k % len(COLOURS)]
