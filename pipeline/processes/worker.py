"""One process of a run: ``python -m phasewatch.pipeline.processes.worker ROLE ADDRESS``.

It says hello to the supervisor at ADDRESS, is told what to do, and does it until the run is over.
It ends with the supervisor: standard input is a pipe from there, and its end means that the other
side is gone.
"""

import importlib
import os
import shutil
import signal
import sys
import threading
import time
from pathlib import Path

from phasewatch.pipeline import logs
from phasewatch.pipeline.processes.children import DEBUG
from phasewatch.pipeline.processes.desk import Desk
from phasewatch.pipeline.transport.links import Transport

ORPHANED, ORPHAN_GRACE_S = 3, 2.0


def main(role: str, address: str) -> int:
    """Serve as `role` (a kind, or a kind and a number: ``reducer-2``); return the exit code."""
    logs.configure(role, debug=DEBUG in os.environ)
    signal.signal(signal.SIGTERM, _end)
    folder = Path(address.removeprefix("ipc://")).parent
    threading.Thread(target=_end_with_supervisor, args=(folder,), daemon=True).start()
    with Transport(linger_s=5.0) as transport:
        desk = Desk(transport, address, role)
        try:
            setup = desk.configure()
            logs.bind(run=setup.run_id)
            kind = role.partition("-")[0]
            serve = importlib.import_module(f"phasewatch.pipeline.processes.{kind}").serve
            serve(transport, desk, setup)
        except Exception as error:
            known = isinstance(error, ValueError | OSError) and str(error)
            kind = "" if known else f"{type(error).__name__} in {role}: "
            desk.report("error", text=kind + " ".join(str(error).split()))
            desk.commands(timeout_ms=2000)  # let the report go before the links are closed
            if os.environ.get(DEBUG):
                raise
            return 1
    return 0


def _end_with_supervisor(folder: Path) -> None:
    while os.read(sys.stdin.fileno(), 1):
        pass
    shutil.rmtree(folder, ignore_errors=True)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(ORPHAN_GRACE_S)
    os._exit(ORPHANED)


def _end(number: int, frame: object) -> None:
    """Leave by an exception, so that files are closed."""
    raise SystemExit(ORPHANED)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
