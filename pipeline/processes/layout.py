"""Which processes a configuration asks for, and where they listen."""

from dataclasses import dataclass

from phasewatch.pipeline.config import Config
from phasewatch.pipeline.transport.links import Link


@dataclass(frozen=True, slots=True)
class Desks:
    """Where the supervisor listens: its children, users, workers of other hosts (None: nowhere)."""

    hub: Link
    control: Link
    gate: Link | None


def roles(config: Config) -> list[str]:
    """Return the processes that `config` asks for."""
    workers = [f"reducer-{i}" for i in range(config.runtime.reducers)]
    workers += ["classifier"] if config.has_classifier else []
    if config.reduce.torch_device is not None:
        workers = ["accelerator"]
    return ["receiver", *workers, "tracker", "sink"]


def addresses(config: Config, folder: str) -> dict[str, str]:
    """Return who listens where: sockets in `folder`, and what workers of other hosts reach."""
    known = {
        name: f"ipc://{folder}/{name}"
        for name in ("work", "acks", "reduced", "endings", "tracker", "results")
    }
    if config.runtime.listen is not None:
        host, _, port = config.runtime.listen.rpartition(":")
        known["work"], known["reduced"] = f"{host}:{int(port) + 1}", f"{host}:{int(port) + 2}"
    if not config.has_classifier:
        ours = "tracker" if config.runtime.listen is None else "reduced"
        known["tracker"] = known["reduced"] = known[ours]
    return known
