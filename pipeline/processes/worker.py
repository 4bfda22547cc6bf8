"""One process of a run: ``python -m phasewatch.pipeline.processes.worker ROLE ADDRESS``.

It says hello to the supervisor at ADDRESS, is told what to do, and does it until the run is over.
It ends with the supervisor: standard input is a pipe from there, and its end means that the other
side is gone.
"""

import importlib
import os
import signal
import sys
import threading

from phasewatch.pipeline.processes.desk import Desk
from phasewatch.pipeline.transport.links import Transport

ROLES = ("receiver", "reducer", "classifier", "accelerator", "tracker", "sink")
ORPHANED = 3


def main(role: str, address: str) -> int:
    """Serve as `role` (a kind, or a kind and a number: ``reducer-2``); return the exit code."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the supervisor, which ends us
    threading.Thread(target=_end_with_supervisor, daemon=True).start()
    with Transport(linger_s=5.0) as transport:
        desk = Desk(transport, address, role)
        try:
            setup = desk.configure()
            kind = role.partition("-")[0]
            serve = importlib.import_module(f"phasewatch.pipeline.processes.{kind}").serve
            serve(transport, desk, setup)
        except (ValueError, OSError) as error:
            desk.report("error", text=" ".join(str(error).split()) or type(error).__name__)
            desk.commands(timeout_ms=2000)  # let the report go before the links are closed
            if os.environ.get("PHASEWATCH_DEBUG"):
                raise
            return 1
    return 0


def _end_with_supervisor() -> None:
    while os.read(sys.stdin.fileno(), 1):
        pass
    os._exit(ORPHANED)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
