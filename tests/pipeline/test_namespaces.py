"""Two hosts, as far as the network can tell: namespaces joined by a link that is cut and mended."""

import ctypes
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from phasewatch.pipeline.bodies import ControlBody
from phasewatch.pipeline.messages import encode
from phasewatch.pipeline.transport.keys import Keys, write_keys
from phasewatch.pipeline.transport.links import Transport

pytestmark = pytest.mark.timeout(240)
CLONE_NEWNET = 0x40000000
HERE, THERE = "10.213.7.1", "10.213.7.2"


@dataclass(frozen=True)
class Hosts:
    """This process is on the host `here`; both have the one end of the link."""

    here: str
    there: str

    def cut(self, *, down: bool) -> None:
        """Cut the link, or mend it."""
        ip("-n", self.here, "link", "set", "pw0", "down" if down else "up")


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


def enter(namespace: int) -> None:
    """Take this thread, and what it starts from now on, to another network."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(namespace, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


@pytest.fixture
def hosts() -> Iterator[Hosts]:
    if shutil.which("ip") is None:
        pytest.skip("there is no command `ip` (iproute2)")
    hosts = Hosts(f"phasewatch-{os.getpid()}-here", f"phasewatch-{os.getpid()}-there")
    try:
        ip("netns", "add", hosts.here)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no network namespaces can be made here: {error.stderr.strip()}")
    own = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        ip("netns", "add", hosts.there)
        ip(
            "-n",
            hosts.here,
            "link",
            "add",
            "pw0",
            "type",
            "veth",
            "peer",
            "pw0",
            "netns",
            hosts.there,
        )
        for name, address in ((hosts.here, HERE), (hosts.there, THERE)):
            ip("-n", name, "address", "add", f"{address}/24", "dev", "pw0")
            ip("-n", name, "link", "set", "pw0", "up")
            ip("-n", name, "link", "set", "lo", "up")
        namespace = os.open(f"/run/netns/{hosts.here}", os.O_RDONLY)
        try:
            enter(namespace)
        finally:
            os.close(namespace)
        yield hosts
    finally:
        enter(own)
        os.close(own)
        for name in (hosts.here, hosts.there):  # the link goes with them
            subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)


@pytest.fixture
def worker(hosts: Hosts) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    processes: list[subprocess.Popen[bytes]] = []

    def start(*options: str) -> subprocess.Popen[bytes]:
        code = "import sys; from phasewatch.pipeline.cli import main; sys.exit(main())"
        command = ["ip", "netns", "exec", hosts.there, sys.executable, "-c", code, "worker"]
        processes.append(subprocess.Popen([*command, *options], cwd="/"))
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.wait()


def test_a_link_between_two_hosts_is_cut_and_mended(
    hosts: Hosts, worker: Any, ramps: Any, play: Any, tmp_path: Path
) -> None:
    write_keys(tmp_path / "keys")
    theirs = tmp_path / "theirs"  # what docs/operations.md has one copy to the other host
    theirs.mkdir(mode=0o700)
    for name in ("server.key", "client.key_secret"):
        shutil.copy2(tmp_path / "keys" / name, theirs / name)
    listen = f"tcp://{HERE}:5600"
    config = ramps.configure(runtime={"listen": listen, "keys": "keys"})
    guest = worker("--connect", listen, "--keys", str(theirs))

    def act(run: Any) -> Any:
        def done() -> int:
            histories = run.view.book.histories
            return max(
                (h[-1].data.get("done", 0) for r, h in histories.items() if "@" in r), default=0
            )

        yield from run.until(lambda: done() > 50)
        before, resent = done(), run.number("receiver", "resent")
        hosts.cut(down=True)
        yield from run.until(lambda: run.number("receiver", "resent") > resent)
        yield from run.progress(100)
        hosts.cut(down=False)
        yield from run.until(lambda: done() > before + 100)
        with Transport(linger_s=5, keys=Keys.load(tmp_path / "keys")) as transport:
            link = transport.link("dealer", run.view.control, bind=False)
            link.send(encode(ControlBody(what="stop")))

    outcome = ramps.run(config, play(act, stop=False))
    ramps.check_whole(config, outcome)
    assert guest.wait(60) == 0
