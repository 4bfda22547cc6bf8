"""The options that scenarios of load have in common."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class What(StrEnum):
    """The built-in chains."""

    frames = "frames"
    patterns = "patterns"


WhatOption = Annotated[
    What,
    typer.Option(
        help="Built-in chain: full LAMBDA 2M frames of the twin, or clean patterns of 4023 points."
    ),
]
ConfigOption = Annotated[
    Path | None,
    typer.Option(help="Run this configuration instead; its source fills the store of items."),
]
NetworkOption = Annotated[
    str | None,
    typer.Option(help="fcnn, cnn, ...: a network with seeded, untrained weights (speed only)."),
]
ModelOption = Annotated[Path | None, typer.Option(help="Folder of a trained model.")]
FramesOption = Annotated[int | None, typer.Option(min=1, help="Number of items.")]
DurationOption = Annotated[
    float,
    typer.Option(min=0.1, help="Seconds; a latency below 60 s is INVALID, whatever it is."),
]
PoissonOption = Annotated[
    bool, typer.Option("--poisson", help="Exponential intervals instead of constant ones.")
]
SeedOption = Annotated[int, typer.Option(min=0, help="Of schedule, twin and weights.")]
JsonOption = Annotated[
    Path | None,
    typer.Option("--json", help="Write the report; raw nanoseconds go beside it (.raw.h5)."),
]
HtmlOption = Annotated[Path | None, typer.Option("--html", help="Write the report as one page.")]
