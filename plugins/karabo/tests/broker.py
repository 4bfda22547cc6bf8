"""RabbitMQ on loopback with a temporary node, for tests and measurements; nothing is left of it."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

START_S = 90.0


def free_ports(n: int) -> list[int]:
    """Return `n` free ports."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(n)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


@contextmanager
def broker(port: int) -> Iterator[None]:
    """Run a broker on 127.0.0.1:`port`."""
    found = shutil.which("rabbitmq-server", path=f"{os.environ['PATH']}:/usr/sbin")
    if found is None:
        raise RuntimeError("there is no rabbitmq-server; Debian: apt-get install rabbitmq-server")
    # Beside it: what is on the path is a wrapper that takes other users, with other folders.
    server = Path(found).resolve().with_name("rabbitmq-server")
    inner, epmd = free_ports(2)
    with tempfile.TemporaryDirectory(prefix="rmq") as folder:
        config = Path(folder, "rabbitmq.conf")
        config.write_text(f"listeners.tcp.1 = 127.0.0.1:{port}\n")
        environment = {
            **os.environ,
            "HOME": folder,
            "RABBITMQ_NODENAME": f"test{port}@localhost",
            "RABBITMQ_CONFIG_FILE": str(config),
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{folder}/plugins",
            "RABBITMQ_MNESIA_BASE": f"{folder}/mnesia",
            "RABBITMQ_LOG_BASE": f"{folder}/log",
            "RABBITMQ_DIST_PORT": str(inner),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
            "ERL_EPMD_PORT": str(epmd),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
        }
        with Path(folder, "out").open("wb") as log:
            process = subprocess.Popen(
                [server], env=environment, stdout=log, stderr=log, start_new_session=True
            )
        try:
            _await(port, process, Path(folder, "out"))
            yield
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            process.wait(30)
            subprocess.run(
                ["epmd", "-port", str(epmd), "-kill"],
                env=environment,
                stdout=subprocess.DEVNULL,
                check=False,
            )


def _await(port: int, process: "subprocess.Popen[bytes]", said: Path) -> None:
    until = time.monotonic() + START_S
    while process.poll() is None and time.monotonic() < until:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.1)
    raise RuntimeError(f"rabbitmq-server did not start: {said.read_text()[-500:]}")
