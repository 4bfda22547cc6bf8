"""Keys for tcp links that other hosts may reach: ZeroMQ CURVE, encrypted, known peers only.

A folder of keys holds ``server.key`` and ``server.key_secret`` for the sockets that bind,
``client.key_secret`` for those that connect, and one ``NAME.key`` for each client that is let in:
public halves end in ``.key``, secret ones in ``.key_secret`` (certificates of `zmq.auth`). Where
keys are given, every tcp link uses them; ipc stays as it is, for files have owners.
"""

import os
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import structlog
import zmq
import zmq.auth

from phasewatch.pipeline.errors import PipelineError

SERVER, CLIENT, PUBLIC, SECRET = "server", "client", ".key", ".key_secret"
DOMAIN = "phasewatch"
log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Pair:
    """A public key and, where it is ours, the secret that belongs to it; 40 characters of Z85."""

    public: bytes
    secret: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Keys:
    """What a folder of keys holds; `clients` are the public keys that are let in."""

    folder: Path
    server: Pair
    client: Pair | None
    clients: frozenset[bytes]

    @classmethod
    def load(cls, folder: Path) -> "Keys":
        """Read the keys in `folder`; a part that is not needed on this host may be missing.

        Raises
        ------
        PipelineError
            There is no ``server.key``, a file is not a key, or others may read a secret one.
        """
        if not folder.is_dir():
            raise PipelineError(f"{folder}: no such folder; `phasewatch keys {folder}` writes one")
        secret = folder / (SERVER + SECRET)
        server = _read(secret if secret.exists() else folder / (SERVER + PUBLIC))
        secret = folder / (CLIENT + SECRET)
        clients = [p for p in sorted(folder.glob("*" + PUBLIC)) if p.stem != SERVER]
        return cls(
            folder=folder,
            server=server,
            client=_read(secret) if secret.exists() else None,
            clients=frozenset(_read(path).public for path in clients),
        )

    def secure(self, socket: "zmq.Socket[bytes]", *, bind: bool) -> None:
        """Make `socket` one that binds as the server, or connects as a client of it.

        Raises
        ------
        PipelineError
            The secret key for that is not in the folder.
        """
        ours, name = (self.server, SERVER) if bind else (self.client, CLIENT)
        if ours is None or ours.secret is None:
            verb = "bind" if bind else "connect"
            raise PipelineError(f"{self.folder}: no {name}{SECRET}, which it takes to {verb}")
        socket.curve_publickey, socket.curve_secretkey = ours.public, ours.secret
        if bind:
            socket.curve_server = True
            socket.zap_domain = DOMAIN.encode()  # without one, whoever has the server's key is in
        else:
            socket.curve_serverkey = self.server.public


class Guard:
    """Lets in the clients that `keys` knows, for all sockets of `context`; until `close`."""

    def __init__(self, context: "zmq.Context[zmq.Socket[bytes]]", keys: Keys) -> None:
        from zmq.auth.thread import ThreadAuthenticator  # it takes 22 ms to import asyncio

        self.refused = 0
        self._clients = keys.clients
        self._authenticator = ThreadAuthenticator(context)
        self._authenticator.start()
        self._authenticator.configure_curve_callback(DOMAIN, credentials_provider=self)

    def callback(self, domain: str, key: bytes) -> bool:
        """Tell whether the client with the public `key` is let in; called for each that comes."""
        known = domain == DOMAIN and key in self._clients
        if not known:
            self.refused += 1
            if self.refused.bit_count() == 1:  # the 1st, 2nd, 4th, 8th: it will try again and again
                log.warning("client refused: unknown key", key=key.decode(), count=self.refused)
        return known

    def close(self) -> None:
        """End the thread that answers."""
        self._authenticator.stop()


def write_keys(folder: Path) -> None:
    """Write new keys for a server and one client to `folder`, which is new or empty; all or none.

    Raises
    ------
    PipelineError
        There is something in `folder` already; keys are not overwritten.
    """
    folder = folder.absolute()
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))  # mode 0700
    try:
        for name in (SERVER, CLIENT):
            zmq.auth.create_certificates(scratch, name)
            (scratch / (name + SECRET)).chmod(0o600)
        os.rename(scratch, folder)
    except OSError as error:
        shutil.rmtree(scratch)
        if folder.exists():
            raise PipelineError(f"{folder} exists and is not overwritten; name a new one") from None
        raise PipelineError(f"{folder}: {error.strerror}") from None


def _read(path: Path) -> Pair:
    try:
        if path.suffix == SECRET and path.stat().st_mode & 0o077:
            raise PipelineError(f"{path} can be read by others; chmod 600 {path}")
        public, secret = zmq.auth.load_certificate(path)
        derived = public if secret is None else zmq.curve_public(secret)
    except PipelineError:
        raise
    except (OSError, ValueError, zmq.ZMQError):
        raise PipelineError(f"{path} is not a key; `phasewatch keys FOLDER` writes some") from None
    if len(public) != 40 or derived != public or (path.suffix == SECRET) != (secret is not None):
        raise PipelineError(f"{path} is not a key; `phasewatch keys FOLDER` writes some")
    return Pair(public, secret)
