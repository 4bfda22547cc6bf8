"""What all pictures share: colours of classes, names of axes, how a caption is set."""

from matplotlib.figure import Figure

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


def caption(figure: Figure, text: str) -> None:
    """Say below `figure` what its colours and lines are."""
    figure.supxlabel(text, fontsize=9, color="0.25", x=0.01, ha="left")
