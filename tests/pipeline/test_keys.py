"""Keys: only known clients come through an encrypted link, and it leaves nothing behind."""

import shutil
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import zmq
from structlog.testing import capture_logs

from phasewatch.pipeline.bodies import AckBody
from phasewatch.pipeline.cli import main
from phasewatch.pipeline.errors import PipelineError
from phasewatch.pipeline.messages import encode
from phasewatch.pipeline.transport.keys import Keys, write_keys
from phasewatch.pipeline.transport.links import Link, Transport, check_bind

LOST = (
    zmq.EVENT_DISCONNECTED
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
)
ELSEWHERE = "tcp://127.0.0.2:0"  # another address of this host


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    write_keys(tmp_path / "keys")
    return Keys.load(tmp_path / "keys")


@pytest.fixture
def server(keys: Keys) -> Iterator[tuple[Transport, Link]]:
    with Transport(linger_s=0, keys=keys) as transport:
        yield transport, transport.link("pull", ELSEWHERE, bind=True)


def good(n: int) -> list[bytes]:
    return [bytes(part) for part in encode(AckBody(run_id="r", seq=n))]


def taken(transport: Transport, link: Link) -> int:
    """Return the number in the next message, and that it is the only one."""
    assert transport.poll([link], 10_000)
    received = link.receive()
    assert received is not None
    assert not transport.poll([link], 0)
    assert isinstance(received[1].body, AckBody)
    return received[1].body.seq


@contextmanager
def turned_away(link: "zmq.Socket[bytes]") -> Iterator["zmq.Socket[bytes]"]:
    """Give a socket that has a message when `link` has lost a connection."""
    monitor = link.get_monitor_socket(LOST)
    yield monitor
    link.disable_monitor()
    monitor.close()


def send_good(address: str, keys: Keys, n: int) -> None:
    with Transport(keys=keys) as client:
        client.link("push", address, bind=False).send(encode(AckBody(run_id="r", seq=n)))


def test_who_has_the_keys_comes_through(server: tuple[Transport, Link], keys: Keys) -> None:
    send_good(server[1].address, keys, 3)
    assert taken(*server) == 3


def test_who_has_none_does_not(server: tuple[Transport, Link], keys: Keys) -> None:
    with zmq.Context() as context, context.socket(zmq.PUSH) as plain:
        plain.linger = 0
        with turned_away(plain) as failed:
            plain.connect(server[1].address)
            assert failed.poll(10_000)
        send_good(server[1].address, keys, 4)
        assert taken(*server) == 4


def test_bytes_that_are_not_zeromq_do_no_harm(server: tuple[Transport, Link], keys: Keys) -> None:
    random = np.random.default_rng(0)
    host, port = server[1].address.removeprefix("tcp://").split(":")
    greeting = b"\xff" + bytes(8) + b"\x7f\x03\x01CURVE".ljust(55, b"\0")
    for begin in (b"", greeting, greeting + b"\x04\xc8\x05HELLO", b"GET / HTTP/1.1\r\n\r\n"):
        with socket.create_connection((host, int(port)), timeout=10) as peer:
            peer.sendall(begin + random.bytes(500))
    send_good(server[1].address, keys, 7)
    assert taken(*server) == 7


def test_a_key_that_is_not_known_is_refused_and_told(
    server: tuple[Transport, Link], keys: Keys, tmp_path: Path
) -> None:
    write_keys(tmp_path / "others")
    stranger = shutil.copytree(tmp_path / "others", tmp_path / "stranger")
    (stranger / "server.key_secret").unlink()
    shutil.copy(keys.folder / "server.key", stranger)
    with capture_logs() as logs, Transport(linger_s=0, keys=Keys.load(stranger)) as client:
        link = client.link("push", server[1].address, bind=False)
        with turned_away(link.socket) as failed:
            link.offer(good(1))
            assert failed.poll(10_000)
        send_good(server[1].address, keys, 5)
        assert taken(*server) == 5
    told = [line for line in logs if line["event"] == "client refused: unknown key"]
    assert told[0]["key"] == Keys.load(stranger).client.public.decode()
    shutil.copy(stranger / "client.key", keys.folder / "stranger.key")
    assert len(Keys.load(keys.folder).clients) == 2


def test_a_server_that_is_not_ours_gets_nothing(keys: Keys, tmp_path: Path) -> None:
    write_keys(tmp_path / "others")
    other = Keys.load(tmp_path / "others")
    shutil.copy(keys.folder / "client.key", other.folder / "theirs.key")
    with Transport(linger_s=0, keys=Keys.load(other.folder)) as server:
        inbox = server.link("pull", ELSEWHERE, bind=True)
        with Transport(linger_s=0, keys=keys) as client:
            link = client.link("push", inbox.address, bind=False)
            with turned_away(link.socket) as failed:
                link.offer(good(1))
                assert failed.poll(10_000)
        assert not server.poll([inbox], 0)


def test_ipc_stays_plain(keys: Keys, tmp_path: Path) -> None:
    with Transport(linger_s=0, keys=keys) as transport:
        inbox = transport.link("pull", f"ipc://{tmp_path}/s", bind=True)
        with Transport() as plain:
            plain.link("push", inbox.address, bind=False).send(good(6))
        assert taken(transport, inbox) == 6


def test_a_public_bind_takes_keys(keys: Keys) -> None:
    with pytest.raises(PipelineError, match=r"`phasewatch keys FOLDER` and \[runtime\] keys"):
        check_bind("tcp://0.0.0.0:5555")
    check_bind("tcp://0.0.0.0:5555", keys)
    with pytest.raises(PipelineError):
        check_bind("udp://0.0.0.0:5555", keys)


def test_what_a_host_lacks_it_cannot_do(keys: Keys) -> None:
    (keys.folder / "server.key_secret").unlink()
    (keys.folder / "client.key_secret").unlink()
    with Transport(linger_s=0, keys=Keys.load(keys.folder)) as transport:
        with pytest.raises(PipelineError, match=r"no server\.key_secret, which it takes to bind"):
            transport.link("pull", ELSEWHERE, bind=True)
        with pytest.raises(PipelineError, match=r"no client\.key_secret, which it takes to conn"):
            transport.link("push", "tcp://127.0.0.2:9", bind=False)


def test_files_are_private_and_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "new" / "keys"
    assert main(["keys", str(folder)]) == 0
    said = capsys.readouterr().out
    names = ["client.key", "client.key_secret", "server.key", "server.key_secret"]
    assert sorted(path.name for path in folder.iterdir()) == names
    assert all(name in said for name in names)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    for name in names[1::2]:
        assert stat.S_IMODE((folder / name).stat().st_mode) == 0o600
    before = Keys.load(folder)
    assert "secret" not in repr(before)
    assert main(["keys", str(folder)]) == 1
    assert "exists and is not overwritten" in capsys.readouterr().err
    assert Keys.load(folder) == before
    assert [path.name for path in folder.parent.iterdir()] == ["keys"]


def test_bad_folders_are_one_line(keys: Keys, tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match="no such folder; `phasewatch keys"):
        Keys.load(tmp_path / "nowhere")
    secret = keys.folder / "server.key_secret"
    secret.chmod(0o640)
    with pytest.raises(PipelineError, match=r"server\.key_secret can be read by others; chmod 600"):
        Keys.load(keys.folder)
    secret.chmod(0o600)
    text = secret.read_text()
    for bad in ("", "x", text.replace("secret-key", "key"), text.replace("=", "= x"), "\xff" * 90):
        secret.write_text(bad)
        with pytest.raises(PipelineError, match=r"server\.key_secret is not a key"):
            Keys.load(keys.folder)
    secret.unlink()
    (keys.folder / "server.key").unlink()
    with pytest.raises(PipelineError, match=r"server\.key is not a key"):
        Keys.load(keys.folder)
