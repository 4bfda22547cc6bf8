"""One process of a run: ``python -m phasewatch.pipeline.processes.worker ROLE ADDRESS``.

It says hello to the supervisor at ADDRESS, is told what to do, and does it until the run is over.
It ends with the supervisor: standard input is a pipe from there, and its end means that the other
side is gone. A worker of another host does the same by `join`, and may leave when it likes.
"""

import importlib
import os
import re
import shutil
import signal
import socket
import sys
import threading
import time
from pathlib import Path

from phasewatch.pipeline import logs
from phasewatch.pipeline.errors import one_line
from phasewatch.pipeline.processes.children import DEBUG, KEYS
from phasewatch.pipeline.processes.desk import Desk
from phasewatch.pipeline.transport.keys import Keys
from phasewatch.pipeline.transport.links import Transport

ORPHANED, ORPHAN_GRACE_S = 3, 2.0


def main(role: str, address: str) -> int:
    """Serve as `role` (a kind, or a kind and a number: ``reducer-2``); return the exit code."""
    logs.configure(role, debug=DEBUG in os.environ)
    signal.signal(signal.SIGTERM, _end)
    folder = Path(address.removeprefix("ipc://")).parent
    threading.Thread(target=_end_with_supervisor, args=(folder,), daemon=True).start()
    keys = Keys.load(Path(os.environ[KEYS])) if KEYS in os.environ else None
    return 0 if _serve(role, address, keys) is None else 1


def join(kind: str, address: str, keys: Keys | None) -> str | None:
    """Serve a run of another host as one more `kind`, until it is over or Ctrl-C or SIGTERM.

    Returns None, or the error that ended it.
    """
    role = f"{kind}@{socket.gethostname()[:40]}-{os.getpid()}"
    logs.configure(role, debug=DEBUG in os.environ)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return _serve(role, address, keys)
    except KeyboardInterrupt:
        return None


def _serve(role: str, address: str, keys: Keys | None) -> str | None:
    with Transport(linger_s=5.0, keys=keys) as transport:
        desk = Desk(transport, address, role, guest="@" in role)
        try:
            setup = desk.configure()
            logs.bind(run=setup.run_id)
            kind = re.split("[-@]", role)[0]
            serve = importlib.import_module(f"phasewatch.pipeline.processes.{kind}").serve
            serve(transport, desk, setup)
        except Exception as error:
            text = one_line(error)
            if not str(error):
                text += f" in {role}"
            elif not isinstance(error, ValueError | OSError):
                text = f"{type(error).__name__} in {role}: {text}"
            desk.report("error", text=text)
            desk.commands(timeout_ms=2000)  # let the report go before the links are closed
            if os.environ.get(DEBUG):
                raise
            return text
        except KeyboardInterrupt:
            desk.report("bye")
    return None


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
