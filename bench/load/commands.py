"""The scenarios of load as commands: ``phasewatch bench server --rate 1000`` and so on."""

from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

import typer

from phasewatch.bench.load.console import prepared_session, show
from phasewatch.bench.load.options import (
    ConfigOption,
    DurationOption,
    FramesOption,
    HtmlOption,
    JsonOption,
    ModelOption,
    NetworkOption,
    PoissonOption,
    SeedOption,
    What,
    WhatOption,
)


class Socket(StrEnum):
    """How a recording listens."""

    pull = "pull"
    sub = "sub"


OFFLINE = {"frames": 600, "patterns": 20_000}  # items, some seconds at the rates aimed for
SINGLE = {"frames": 3_000, "patterns": 20_000}


def single_stream(
    what: WhatOption = What.patterns,
    config: ConfigOption = None,
    network: NetworkOption = None,
    model: ModelOption = None,
    frames: FramesOption = None,
    seed: SeedOption = 0,
    json_file: JsonOption = None,
    html: HtmlOption = None,
) -> None:
    """One item at a time: the next is due when the last was answered. Read the p90.

    Latency is from due to delivered at the sink, through all processes.
    """
    with prepared_session(what, config, network, model, seed) as session:
        from phasewatch.bench.load.session import one

        n = frames or SINGLE[session.workload.kind]
        show(one(session, session.load("single-stream", n, seed=seed)), json_file, html)


def server(
    rate: Annotated[float, typer.Option(min=0.001, help="Items per second.")],
    duration: DurationOption = 60.0,
    poisson: PoissonOption = False,
    what: WhatOption = What.patterns,
    config: ConfigOption = None,
    network: NetworkOption = None,
    model: ModelOption = None,
    frames: FramesOption = None,
    seed: SeedOption = 0,
    json_file: JsonOption = None,
    html: HtmlOption = None,
) -> None:
    """Items at a rate, come what may (open loop); latency from the instant each was due. Read p99.

    The same load is given to the harness alone first, which takes as long again.
    """
    with prepared_session(what, config, network, model, seed) as session:
        from phasewatch.bench.load.session import one

        n = frames or max(1, round(rate * duration))
        load = session.load("server", n, rate_hz=rate, poisson=poisson, seed=seed)
        show(one(session, load), json_file, html)


def offline(
    what: WhatOption = What.patterns,
    config: ConfigOption = None,
    network: NetworkOption = None,
    model: ModelOption = None,
    frames: FramesOption = None,
    seed: SeedOption = 0,
    json_file: JsonOption = None,
    html: HtmlOption = None,
) -> None:
    """All items are due at once. Read the rate: items per second, nothing lost."""
    with prepared_session(what, config, network, model, seed) as session:
        from phasewatch.bench.load.session import one

        n = frames or OFFLINE[session.workload.kind]
        show(one(session, session.load("offline", n, seed=seed)), json_file, html)


def find_peak(
    p99_ms: Annotated[
        float, typer.Option("--p99-ms", min=0.001, help="What p99 is to be under.")
    ] = 5.0,
    duration: DurationOption = 60.0,
    step_duration: Annotated[
        float, typer.Option(min=0.1, help="Seconds of each run of the search.")
    ] = 10.0,
    poisson: PoissonOption = False,
    what: WhatOption = What.patterns,
    config: ConfigOption = None,
    network: NetworkOption = None,
    model: ModelOption = None,
    frames: FramesOption = None,
    seed: SeedOption = 0,
    json_file: JsonOption = None,
    html: HtmlOption = None,
) -> None:
    """Look for the highest rate at which the p99 stays under a limit, by halving intervals.

    The search begins at the throughput of an offline run of --frames items. What it finds is then
    run for --duration, and only that run's verdict counts.
    """
    with prepared_session(what, config, network, model, seed) as session:
        from phasewatch.bench.load.session import find_peak as search

        found = search(
            session,
            limit_ms=p99_ms,
            duration_s=duration,
            step_s=step_duration,
            poisson=poisson,
            seed=seed,
            burst=frames or OFFLINE[session.workload.kind],
        )
        peak = found.report["peak_hz"]
        said = f"{peak:.1f} items/s" if peak else "none"
        typer.echo(f"peak with a p99 below {p99_ms:g} ms: {said}")
        show(found, json_file, html)


def compare(
    what: WhatOption = What.frames,
    config: ConfigOption = None,
    network: NetworkOption = "fcnn",
    model: ModelOption = None,
    frames: FramesOption = None,
    singles: Annotated[int, typer.Option(min=1, help="Items one by one, in each round.")] = 200,
    turns: Annotated[int, typer.Option(min=1, help="Turns of the loop in each round.")] = 100,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds; medians are compared.")] = 3,
    seed: SeedOption = 0,
    json_file: JsonOption = None,
    html: HtmlOption = None,
) -> None:
    """Take turns with the loop that a user would write, in one run. Read the ratios.

    The loop: pyFAI integrate1d with its fastest method here, pybaselines asls, the same network
    eagerly in torch, in one process, on the same items.
    """
    with prepared_session(what, config, network, model, seed, clean=False) as session:
        from phasewatch.bench.load.compare import compare as take_turns

        n = frames or OFFLINE[session.workload.kind]
        found = take_turns(session, frames=n, singles=singles, turns=turns, rounds=rounds)
        ratio = found.report["ratio"]
        deviation = found.report["loop_deviation"]
        typer.echo(f"the loop: {found.report['loop']}; patterns differ by {deviation:.0e} at most")
        typer.echo(
            f"chain over loop: throughput {ratio['throughput']:.1f} x, latency of one item "
            f"{ratio['latency']:.2f} x shorter"
        )
        show(found, json_file, html)


def record(
    address: Annotated[str, typer.Argument(help="tcp://HOST:PORT or ipc://PATH.")],
    out: Annotated[Path, typer.Option(help="File to write.")],
    socket: Annotated[
        Socket, typer.Option(help="sub: a copy of what is published; pull: takes it from others.")
    ] = Socket.sub,
    bind: Annotated[bool, typer.Option("--bind", help="Bind instead of connecting.")] = False,
    messages: Annotated[int | None, typer.Option(min=1, help="Stop after so many.")] = None,
    seconds: Annotated[float | None, typer.Option(min=0.1, help="Stop after so long.")] = None,
    max_mib: Annotated[float | None, typer.Option(min=0.001, help="Stop before so large.")] = None,
) -> None:
    """Record raw traffic, whatever its protocol, until a limit or Ctrl-C.

    Replay it with [source] uri = "wire:FILE".
    """
    from rich.console import Console

    from phasewatch.bench.load import record as recorder
    from phasewatch.plugins.raw_socket import RawSocket

    kind: Literal["pull", "sub"] = "sub" if socket is Socket.sub else "pull"
    with (
        Console(stderr=True).status("listening") as status,
        RawSocket(kind, address, bind=bind, hwm=64) as wire,
    ):

        def tell(done: int, nbytes: int) -> None:
            status.update(f"{done} messages, {nbytes / 2**20:.1f} MiB")

        done, nbytes = recorder.record(
            wire,
            out,
            messages=messages,
            seconds=seconds,
            max_bytes=None if max_mib is None else int(max_mib * 2**20),
            progress=tell,
        )
    typer.echo(f"{out}: {done} messages, {nbytes} bytes")


SCENARIOS: dict[str, Callable[..., None]] = {
    "single-stream": single_stream,
    "server": server,
    "offline": offline,
    "find-peak": find_peak,
    "compare": compare,
    "record": record,
}
