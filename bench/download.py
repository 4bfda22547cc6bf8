"""Downloads over HTTP that go on where an earlier one broke off.

Beside the file lies ``FILE.version``, what the server called the version that the file is part of
(its ETag, or the date of its last change): the server sends the rest only of the same version.
"""

import http.client
import re
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from phasewatch.pipeline.errors import PipelineError

Progress = Callable[[int, int | None], None]
PIECE = 1 << 16
TIMEOUT_S = 30.0
AGAIN = "the same command goes on from there"


def download(
    url: str, target: Path, *, limit: int, progress: Progress = lambda done, total: None
) -> None:
    """Download `url` to the file `target`; where part of it is there, only the rest.

    Parameters
    ----------
    limit
        In bytes; what is larger is refused.
    progress
        Called with the number of bytes that are there, and of all (None if the server does not
        say), after each piece.

    Raises
    ------
    PipelineError
        The server cannot be reached or refuses, the download broke off, or it is too large.
    OSError
        `target` cannot be written: the disk is full.
    """
    note = target.with_name(target.name + ".version")
    have = target.stat().st_size if target.exists() else 0
    headers = {}
    if have:
        headers["Range"] = f"bytes={have}-"
        version = note.read_text(encoding="latin-1") if note.is_file() else ""
        headers |= {"If-Range": version} if version else {}
    try:
        with _errors(url):
            response = urllib.request.urlopen(_request(url, headers), timeout=TIMEOUT_S)
    except _BeyondEndError as error:
        if error.total == have:
            return  # all of it was there
        if not have:
            raise PipelineError(f"{url}: the server has nothing to send") from None
        target.unlink()
        return download(url, target, limit=limit, progress=progress)
    with response:
        start, total = _extent(url, response, asked=have)
        if total is not None and total > limit:
            raise PipelineError(f"{url}: {total} bytes, more than {limit}")
        try:
            with target.open("ab" if start else "wb") as file:
                if not start:
                    note.write_text(_version(response), encoding="latin-1")
                done = start
                for piece in _pieces(url, response):
                    done += len(piece)
                    if done > limit:
                        raise PipelineError(f"{url}: more than {limit} bytes")
                    file.write(piece)
                    progress(done, total)
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(target)) from error
    if total is not None and done != total:
        raise PipelineError(f"{url}: broke off after {done} of {total} bytes; {AGAIN}")


def read(url: str, *, limit: int) -> bytes:
    """Return what `url` holds, at most `limit` bytes.

    Raises
    ------
    PipelineError
        As `download`.
    """
    with _errors(url), urllib.request.urlopen(_request(url, {}), timeout=TIMEOUT_S) as response:
        content: bytes = response.read(limit + 1)
    if len(content) > limit:
        raise PipelineError(f"{url}: more than {limit} bytes")
    return content


class _BeyondEndError(Exception):
    """The server has no byte from there on; `total` is what it has, if it says so."""

    def __init__(self, total: int | None) -> None:
        self.total = total


def _request(url: str, headers: dict[str, str]) -> urllib.request.Request:
    if not url.startswith(("http://", "https://")):  # urllib would open file: too
        raise PipelineError(f"{url}: not an http:// or https:// address")
    return urllib.request.Request(url, headers={"User-Agent": "phasewatch", **headers})


def _extent(url: str, response: http.client.HTTPResponse, *, asked: int) -> tuple[int, int | None]:
    """Return where what comes begins, and how long the whole is, in bytes."""
    length = response.headers.get("Content-Length", "")
    coming = int(length) if length.isdecimal() else None
    start = 0
    if response.status == http.HTTPStatus.PARTIAL_CONTENT:
        found = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
        if found is None or int(found[1]) != asked:
            raise PipelineError(f"{url}: the server sends another part than it was asked for")
        start = asked
    return start, None if coming is None else start + coming


def _version(response: http.client.HTTPResponse) -> str:
    """Return what names this version in If-Range; a weak ETag may not (RFC 9110, 13.1.5)."""
    tag = response.headers.get("ETag", "")
    return tag if tag.startswith('"') else response.headers.get("Last-Modified", "")


def _pieces(url: str, response: http.client.HTTPResponse) -> Iterator[bytes]:
    while True:
        with _errors(url):
            piece = response.read(PIECE)
        if not piece:
            return
        yield piece


@contextmanager
def _errors(url: str) -> Iterator[None]:
    """Say in one line what went wrong on the way to the server."""
    try:
        yield
    except urllib.error.HTTPError as error:
        with error:
            if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                found = re.fullmatch(r"bytes \*/(\d+)", error.headers.get("Content-Range", ""))
                raise _BeyondEndError(int(found[1]) if found else None) from None
            hint = "; try again later" if error.code == 429 or error.code >= 500 else ""
            raise PipelineError(f"{url}: {error.code} {error.reason}{hint}") from None
    except urllib.error.URLError as error:
        raise PipelineError(f"{url}: cannot be reached: {error.reason}") from None
    except (OSError, http.client.HTTPException) as error:
        said = str(error) or type(error).__name__
        raise PipelineError(f"{url}: broke off: {said}; {AGAIN}") from None
