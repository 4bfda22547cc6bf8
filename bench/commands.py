"""The commands of this package."""

import json
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

import typer

from phasewatch.bench.load.commands import SCENARIOS as LOAD
from phasewatch.pipeline.errors import PipelineError


class _Layout(StrEnum):
    lambda2m = "lambda2m"
    p022 = "p022"


class _Server(StrEnum):
    rep = "REP"
    push = "PUSH"


class _Kind(StrEnum):
    frames = "frames"
    patterns = "patterns"


KINDS: dict[_Server, Literal["REP", "PUSH"]] = {_Server.rep: "REP", _Server.push: "PUSH"}


def simulate(
    experiment: Annotated[str, typer.Argument(help="One of the names above, or all: the ten.")],
    out: Annotated[
        Path | None,
        typer.Option(help="Folder to write to; of all, each gets a folder of its name in it."),
    ] = None,
    sheet: Annotated[
        Path | None,
        typer.Option(help="A picture of the experiments, each beside its description, a PNG file."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Another seed is another run.")] = 0,
    frames: Annotated[
        int | None,
        typer.Option(min=1, help="Frames over the whole ramp; else the experiment's own number."),
    ] = None,
    layout: Annotated[_Layout, typer.Option(help="Detector layout.")] = _Layout.lambda2m,
    kind: Annotated[_Kind, typer.Option("--kind", "--as", help="What to write.")] = _Kind.frames,
    no_frames: Annotated[
        bool, typer.Option("--no-frames", help="Write all but the data; they are simulated later.")
    ] = False,
    labels: Annotated[int, typer.Option(min=1, help="Number of labelled frames.")] = 12,
) -> None:
    """Simulate a run of an experiment and write it to a folder, or draw it on a sheet.

    \b
    fe-ramp     Fe, bcc to hcp: the demonstration's
    mgfeo-ramp  (Mg0.2Fe0.8)O, B1 to rB1, 349 patterns, 1 to above 100 GPa in 50 s
    D1          FeO, B1 to rB1, fast, 60 patterns
    D2          Fe, bcc to hcp, 44 patterns
    D3          Fe, bcc to hcp, 52 patterns
    D4          FeO, B1 to rB1, slow, 130 patterns
    D5          Fe, bcc to hcp, 70 patterns
    D6          Fe, bcc to hcp, with platinum, 64 patterns
    D7          Fe, bcc to hcp, in neon, 56 patterns
    D8          Fe, bcc to hcp, 222 patterns
    D9          Fe, bcc to hcp, 460 patterns

    \b
    phasewatch simulate D8 --kind patterns --out d8
    phasewatch simulate all --sheet ten.png
    """  # noqa: D301 (keeps the lines as they are in the help)
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    from phasewatch.bench.sheet import draw_sheet
    from phasewatch.bench.simulate import write_run
    from phasewatch.bench.twin.catalogue import THESIS
    from phasewatch.bench.twin.run import open_run

    if out is None and sheet is None:
        raise PipelineError("--out FOLDER or --sheet PICTURE must say what to write")
    names = THESIS if experiment == "all" else (experiment,)
    runs = [open_run(name, seed=seed, frames=frames, layout=layout.value) for name in names]
    columns = ("{task.description}", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, transient=True) as bar:

        def counter(what: str, total: int) -> Callable[[int], None]:
            task = bar.add_task(what, total=total)
            return lambda done: bar.update(task, completed=done)

        if out is not None:
            for run in runs:
                name, n, gpa = run.experiment.name, run.conditions.frames, run.pressure_gpa
                folder = out / name if experiment == "all" else out
                write_run(
                    run,
                    folder,
                    kind=kind.value,
                    with_data=not no_frames,
                    labels=labels,
                    progress=counter(f"{name} seed {seed}", n),
                )
                what = "no data" if no_frames else f"{n} {kind.value}"
                line = f"{folder}: {what}, {gpa[0]:.1f} to {gpa[-1]:.1f} GPa"
                bar.console.print(line, soft_wrap=True, highlight=False)
        if sheet is not None:
            draw_sheet(runs, sheet, progress=counter("sheet", len(runs)))
    if out is not None and experiment != "all":
        typer.echo(f"configuration: {out / 'run.toml'}; picture: {out / 'run.png'}")
    if sheet is not None:
        typer.echo(f"picture: {sheet}")


def cake(
    config: Annotated[Path, typer.Argument(help="The configuration of a run, a TOML file.")],
    frame: Annotated[int, typer.Option(min=0, help="Which frame, counted from 0.")] = 0,
    out: Annotated[Path, typer.Option(help="The picture to write, a PNG file.")] = Path("cake.png"),
    source: Annotated[
        str | None, typer.Option(help="Take this source, e.g. lambda-nexus:/data/run42, instead.")
    ] = None,
) -> None:
    """Draw one frame over azimuth and radius, with its pattern below.

    Bent rings say that the geometry is off, spots that there are few grains, arcs a texture.
    """
    from phasewatch.bench.cake import draw_cake

    draw_cake(config, out, frame=frame, source=source)
    typer.echo(f"picture: {out}")


def fetch(
    name: Annotated[str, typer.Argument(metavar="SET", help="Which set: mgfeo-ramp.")],
    out: Annotated[
        Path | None, typer.Option(help="Folder to make; else one of the set's name, here.")
    ] = None,
    site: Annotated[str, typer.Option(hidden=True)] = "https://zenodo.org",
) -> None:
    """Fetch a published set of patterns, into a folder that `phasewatch train` reads.

    mgfeo-ramp: (Mg0.2Fe0.8)O in a diamond anvil cell, from 1 to above 100 GPa in 50 s, cubic B1 to
    rhombohedral rB1; 349 patterns of 4023 points, two theta 9.56 to 25.55 degrees at 25.6 keV, as
    .xy files in the order of the ramp, some 40 MB. To cite: https://doi.org/10.5281/zenodo.4424866,
    where its licence is, and Yue Sun, PhD thesis, University of Szeged, 2023.

    A download that broke off goes on with the same command. Beside the files lie their sums,
    SHA256SUMS; where the folder is there already, the files are compared with them and nothing is
    fetched.
    """
    from rich.progress import BarColumn, DownloadColumn, Progress, TransferSpeedColumn

    from phasewatch.bench import fetch as fetching

    data = fetching.dataset(name)
    columns = ("{task.description}", BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, transient=True) as bar:
        task = bar.add_task(name, total=None)
        found = fetching.fetch(
            data,
            Path(name) if out is None else out,
            site=site,
            progress=lambda what, done, total: bar.update(
                task, description=f"{name}: {what}", completed=done, total=total
            ),
        )
    if not found.new:
        typer.echo(f"{found.folder}: {found.files} patterns are there, as they were fetched")
        return
    typer.echo(f"{found.folder}: {found.files} patterns, sums in SHA256SUMS")
    typer.echo(f"source: {found.source}")
    typer.echo(f"archive compared {found.checked}")


Json = Annotated[
    Path | None, typer.Option("--json", help="Write raw times and the machine's description.")
]


def reduction(json_file: Json = None) -> None:
    """Integration, maps and baseline against pyFAI and pybaselines, on one core and on all.

    8 frames a call and core (64 patterns a call) and one; then how it grows with pixels and frames.
    """
    from phasewatch.bench import reduction_report

    reduction_report.run(json_file)


def inference(json_file: Json = None) -> None:
    """Each network, from patterns to labels, against eager torch, on one core."""
    from phasewatch.bench import inference

    inference.report(json_file)


def bridge(
    frames: Annotated[int, typer.Option(min=2, help="Full frames of the run, 5.7 MB each.")] = 100,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds; medians are compared.")] = 5,
    socket: Annotated[_Server, typer.Option(help="The server's socket.")] = _Server.rep,
    json_file: Json = None,
) -> None:
    """Take a run of 2M frames from a Karabo bridge: its own client alone, and into our ring."""
    from rich.console import Console

    from phasewatch.bench.bridge import measure

    with Console(stderr=True).status("bridge") as status:
        found = measure(KINDS[socket], frames, rounds, status.update)
    for who, rate in found["median_hz"].items():
        cpu = found["client_cpu_ms"][who]
        typer.echo(f"{who:14} {rate:7.1f} frames/s, {cpu:4.1f} ms of the client's processor each")
    typer.echo(f"into the ring over bridge alone: {found['ratio']:.2f}")
    if json_file is not None:
        json_file.write_text(json.dumps(found, indent=1) + "\n")
        typer.echo(f"report: {json_file}")


def decode(json_file: Json = None) -> None:
    """DECTRIS images from message to frame against DECTRIS's decoder, on one core; and copies."""
    from phasewatch.bench import decode

    decode.report(json_file)


bench = typer.Typer(
    help="Measure on this machine: one scenario each, with options of its own.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
bench.__doc__ = "Measure on this machine: reduction, inference, load, what a user would write."
# One line per scenario, in the order in which the help shows them.
OURS: dict[str, Callable[..., None]] = {
    "reduction": reduction,
    "inference": inference,
    "bridge": bridge,
    "decode": decode,
}
for _name, _scenario in {**OURS, **LOAD}.items():
    bench.command(_name)(_scenario)
