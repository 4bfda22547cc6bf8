import fcntl
import hashlib
import io
import json
import os
import stat
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, HTTPServer

import numpy as np
import py7zr
import pytest

from phasewatch.bench.archive import unpack
from phasewatch.bench.checksums import SUMS
from phasewatch.bench.download import download
from phasewatch.bench.fetch import SETS, dataset, fetch
from phasewatch.models.series import read_series
from phasewatch.pipeline.cli import main
from phasewatch.pipeline.errors import PipelineError

REAL = SETS["mgfeo-ramp"]
SMALL = replace(REAL, files=3, points=20)
NOWHERE = "http://127.0.0.1:9"  # discard: nothing listens
COPY = [{"id": py7zr.FILTER_COPY}]
# As integration programs write them: words, units, a lone number, a blank line; no "#".
HEADER = "".join(f"key {i}: 1.5 2.5 m\n" for i in range(22)) + "4023\n\n  2th_deg   intensity\n"


def pattern(i: int, points: int = 20) -> str:
    x = 9.5603831 + 0.00397544 * np.arange(points)
    return HEADER + "".join(f"{a:.7f} {i + 0.25:.6e}\n" for a in x)


def name(i: int) -> str:
    return f"l2_fe80mg20_ramp_00001_m1_{i + 1:04d}.xy"


def packed(files: dict[str, str], *, tamper=lambda entries: None) -> bytes:
    """Return a 7z archive; `tamper` may change what it says of its entries."""
    buffer = io.BytesIO()
    with py7zr.SevenZipFile(buffer, "w", filters=COPY) as archive:
        for path, text in files.items():
            archive.writestr(text, path)
        tamper(archive.header.files_info.files)
    return buffer.getvalue()


def small(**more: str) -> dict[str, str]:
    return {f"set/{name(i)}": pattern(i) for i in range(3)} | more


@dataclass
class Site:
    """What a server has, and how it fails."""

    archive: bytes
    record: bytes | None = None
    status: int = 200
    ranges: bool = True
    etag: str = '"1"'
    cut: int | None = None  # sends so many bytes of the archive, then hangs up
    asked: list[dict[str, str]] = field(default_factory=list)
    url: str = ""

    def __post_init__(self) -> None:
        self.vouch("md5:" + hashlib.md5(self.archive).hexdigest())

    def vouch(self, checksum: str) -> None:
        files = [{"key": REAL.archive, "checksum": checksum, "size": len(self.archive)}]
        metadata = {"title": "A\u001b[31m ramp", "license": {"id": "cc-by-4.0"}}
        self.record = json.dumps({"files": files, "metadata": metadata}).encode()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        if request.path == f"/api/records/{REAL.record}":
            self.send(request, 404 if self.record is None else 200, self.record or b"")
            return
        assert request.path == f"/records/{REAL.record}/files/{REAL.archive}?download=1"
        self.asked.append(dict(request.headers))
        if self.status != 200:
            self.send(request, self.status, b"no")
            return
        wanted = request.headers.get("Range")
        if wanted is None or not self.ranges or request.headers["If-Range"] != self.etag:
            self.send(request, 200, self.archive, ETag=self.etag)
            return
        start, size = int(wanted.removeprefix("bytes=").removesuffix("-")), len(self.archive)
        if start >= size:
            self.send(request, 416, b"", Content_Range=f"bytes */{size}")
        else:
            covered = f"bytes {start}-{size - 1}/{size}"
            self.send(request, 206, self.archive[start:], Content_Range=covered)

    def send(
        self, request: BaseHTTPRequestHandler, code: int, content: bytes, **headers: str
    ) -> None:
        request.send_response(code)
        request.send_header("Content-Length", str(len(content)))
        for key, value in headers.items():
            request.send_header(key.replace("_", "-"), value)
        request.end_headers()
        request.wfile.write(content if "api" in request.path else content[: self.cut])


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def serve(clean_host: None) -> Iterator:
    opened = []

    def start(site: Site) -> Site:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                site.answer(self)

            def log_message(self, *args: object) -> None:
                pass

        server = HTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        opened.append((server, thread))
        site.url = f"http://127.0.0.1:{server.server_port}"
        return site

    yield start
    for server, thread in opened:
        server.shutdown()
        server.server_close()
        thread.join()


def nothing_made(tmp_path) -> None:
    """Nothing lies under the final name, nor anywhere but in the folder of what is not whole."""
    assert {p.name for p in tmp_path.iterdir()} <= {"set.part"}
    assert not (tmp_path / "set.part" / "files").exists()


def test_the_set_is_a_series(serve, tmp_path):
    data = replace(REAL, points=20)
    content = {f"xy/{name(i)}": pattern(i) for i in reversed(range(349))}
    site = serve(Site(packed(content | {"xy/readme.txt": "1", "xy/._a.xy": "\0"})))
    told = []
    found = fetch(data, tmp_path / "set", site=site.url, progress=lambda *now: told.append(now))
    assert (found.folder, found.files, found.new) == (tmp_path / "set", 349, True)
    assert found.source == f"{REAL.doi}: A[31m ramp; licence cc-by-4.0"
    assert found.checked == "with the record's md5"
    size = len(site.archive)
    assert ("downloading", size, size) in told
    series = read_series(tmp_path / "set")
    assert series.unit == "2th_deg"
    np.testing.assert_array_equal(series.intensity[:, 0], np.arange(349) + 0.25)
    np.testing.assert_allclose(series.axis[[0, -1]], [9.5603831, 9.5603831 + 19 * 0.00397544])
    assert {p.name for p in tmp_path.iterdir()} == {"set"}
    sums = (tmp_path / "set" / SUMS).read_text().splitlines()
    assert sums[1] == f"# {REAL.archive}: sha256 {hashlib.sha256(site.archive).hexdigest()}"
    digest = hashlib.sha256((tmp_path / "set" / name(0)).read_bytes()).hexdigest()
    assert sums[2] == f"{digest}  {name(0)}"
    assert len(sums) == 2 + 349
    assert (tmp_path / "set" / name(0)).stat().st_mode & 0o400
    # The second call needs no network.
    again = fetch(data, tmp_path / "set", site=NOWHERE)
    assert (again.files, again.new, len(site.asked)) == (349, False, 1)


def test_a_set_that_has_changed_is_told(serve, tmp_path):
    site, out = serve(Site(packed(small()))), tmp_path / "set"
    fetch(SMALL, out, site=site.url)
    (out / "labels.csv").write_text("index,label\n")  # a user's own
    assert not fetch(SMALL, out, site=NOWHERE).new
    (out / "more.xy").write_text(pattern(9))
    with pytest.raises(PipelineError, match=r"more\.xy: is not in SHA256SUMS"):
        fetch(SMALL, out, site=NOWHERE)
    (out / "more.xy").unlink()
    (out / name(1)).write_text(pattern(2))
    with pytest.raises(PipelineError, match=r"0002\.xy: has changed"):
        fetch(SMALL, out, site=NOWHERE)
    (out / name(1)).unlink()
    with pytest.raises(PipelineError, match=r"0002\.xy: is missing"):
        fetch(SMALL, out, site=NOWHERE)
    (out / SUMS).write_text("# only a remark\nnot a sum\n")
    with pytest.raises(PipelineError, match="SHA256SUMS line 2: not a sum"):
        fetch(SMALL, out, site=NOWHERE)
    for file in out.glob("*.xy"):
        file.unlink()
    (out / SUMS).write_text("")
    with pytest.raises(PipelineError, match="SHA256SUMS: 0 files in it, not 3"):
        fetch(SMALL, out, site=NOWHERE)
    assert len(site.asked) == 1


def test_a_download_that_broke_off_goes_on(serve, tmp_path):
    site = serve(Site(packed(small()), cut=700))
    with pytest.raises(PipelineError, match=rf"broke off after 700 of {len(site.archive)} bytes"):
        fetch(SMALL, tmp_path / "set", site=site.url)
    nothing_made(tmp_path)
    with pytest.raises(PipelineError, match=rf"broke off after 1400 of {len(site.archive)} bytes"):
        fetch(SMALL, tmp_path / "set", site=site.url)
    site.cut = None
    fetch(SMALL, tmp_path / "set", site=site.url)
    assert [a.get("Range") for a in site.asked] == [None, "bytes=700-", "bytes=1400-"]
    assert [a.get("If-Range") for a in site.asked] == [None, '"1"', '"1"']
    assert len(read_series(tmp_path / "set")) == 3


@pytest.mark.parametrize("how", ["no ranges", "another version"])
def test_a_download_starts_again_where_it_must(serve, tmp_path, how):
    site = serve(Site(packed(small()), cut=700))
    with pytest.raises(PipelineError, match="broke off"):
        fetch(SMALL, tmp_path / "set", site=site.url)
    site.cut = None
    site.ranges = how != "no ranges"
    site.etag = '"2"' if how == "another version" else '"1"'
    fetch(SMALL, tmp_path / "set", site=site.url)
    assert site.asked[-1]["Range"] == "bytes=700-"
    assert len(read_series(tmp_path / "set")) == 3


def test_what_is_whole_is_not_downloaded_again(serve, tmp_path):
    site, target = serve(Site(b"x" * 1000)), tmp_path / "file"
    url = f"{site.url}/records/{REAL.record}/files/{REAL.archive}?download=1"
    download(url, target, limit=1000)
    download(url, target, limit=1000)
    assert len(site.asked) == 2
    assert target.read_bytes() == b"x" * 1000
    target.write_bytes(b"y" * 1001)  # longer than the server's: it is not of it
    download(url, target, limit=1000)
    assert target.read_bytes() == b"x" * 1000
    with pytest.raises(PipelineError, match="1000 bytes, more than 999"):
        download(url, tmp_path / "other", limit=999)
    assert not (tmp_path / "other").exists()


def test_another_part_than_asked_for_is_refused(serve, tmp_path, monkeypatch):
    site = serve(Site(packed(small()), cut=700))
    with pytest.raises(PipelineError, match="broke off"):
        fetch(SMALL, tmp_path / "set", site=site.url)
    send = Site.send

    def shifted(self, request, code, content, **headers):
        if code == 206:
            headers["Content_Range"] = "bytes 0-9/10"
        send(self, request, code, content, **headers)

    monkeypatch.setattr(Site, "send", shifted)
    with pytest.raises(PipelineError, match="sends another part than it was asked for"):
        fetch(SMALL, tmp_path / "set", site=site.url)


@pytest.mark.parametrize(
    ("status", "says"),
    [
        (404, r"404 Not Found$"),
        (416, r"the server has nothing to send$"),
        (429, r"429 Too Many Requests; try again later$"),
        (500, r"500 Internal Server Error; try again later$"),
    ],
)
def test_a_server_that_refuses(serve, tmp_path, status, says):
    site = serve(Site(b"", status=status))
    with pytest.raises(PipelineError, match=says):
        fetch(SMALL, tmp_path / "set", site=site.url)
    assert not list(tmp_path.iterdir())


def test_no_network(tmp_path):
    with pytest.raises(PipelineError, match=r"\.7z\?download=1: cannot be reached: .*refused"):
        fetch(SMALL, tmp_path / "set", site=NOWHERE)
    with pytest.raises(PipelineError, match="not an http:// or https:// address"):
        fetch(SMALL, tmp_path / "set", site="file:///etc")
    assert not list(tmp_path.iterdir())


def test_a_wrong_checksum(serve, tmp_path):
    site = serve(Site(packed(small())))
    site.vouch("md5:" + "0" * 32)
    found = hashlib.md5(site.archive).hexdigest()
    with pytest.raises(PipelineError, match=f"md5 {found}, but the record has 0000"):
        fetch(SMALL, tmp_path / "set", site=site.url)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("record", "says"),
    [
        (None, "404 Not Found"),
        (b"<html>", "Invalid JSON"),
        (b'{"files": [{"key": 1}]}', "files.0.key: Input should be a valid string"),
        (b'{"files": []}', f"the record has no md5 of {REAL.archive}"),
    ],
)
def test_without_a_record_it_is_said_that_nothing_was_compared(serve, tmp_path, record, says):
    site = serve(Site(packed(small())))
    site.record = record
    found = fetch(SMALL, tmp_path / "set", site=site.url)
    assert found.new
    assert found.checked.startswith("with nothing: ")
    assert says in found.checked


def test_a_record_that_names_no_licence(serve, tmp_path):
    site = serve(Site(packed(small())))
    site.record = json.dumps(json.loads(site.record) | {"metadata": {"license": None}}).encode()
    found = fetch(SMALL, tmp_path / "set", site=site.url)
    assert found.source == f"{REAL.doi}: without title; licence not named"
    assert found.checked == "with the record's md5"


def device(entries) -> None:
    entries[-1]["attributes"] = 0x8000 | (stat.S_IFCHR | 0o666) << 16


def link(entries) -> None:
    entries[-1]["attributes"] = 0x8000 | (stat.S_IFLNK | 0o777) << 16


def renamed(to: str):
    return lambda entries: entries[-1].update(filename=to)


HOSTILE = {
    "up": (renamed("../evil.xy"), r"'\.\./evil\.xy' leads out"),
    "up from a subfolder": (renamed("set/../../evil.xy"), "leads out"),
    "up, as Windows has it": (renamed("..\\evil.xy"), "leads out"),
    "up, and not a pattern": (renamed("../.bashrc"), "leads out"),
    "absolute": (renamed("/evil.xy"), r"'/evil\.xy' leads out"),
    "absolute, as Windows has it": (renamed("C:\\evil.xy"), "leads out"),
    "unprintable": (renamed("a\nb.xy"), "leads out"),
    "twice": (renamed(f"other/{name(0)}"), "is in it more than once"),
    "device": (device, r"'set/z\.xy' is a link or a device"),
    "link": (link, r"'set/z\.xy' is a link or a device"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_archive_is_refused(serve, tmp_path, kind):
    tamper, says = HOSTILE[kind]
    content = packed(small(**{"set/z.xy": "../../../evil"}), tamper=tamper)
    site = serve(Site(content))
    with pytest.raises(PipelineError, match=says):
        fetch(replace(SMALL, files=4), tmp_path / "set", site=site.url)
    assert not list(tmp_path.iterdir())


def test_a_link_as_7z_packs_it_is_refused(tmp_path):
    (tmp_path / "a.xy").symlink_to("/etc/passwd")
    with py7zr.SevenZipFile(tmp_path / "a.7z", "w", filters=COPY) as archive:
        archive.write(tmp_path / "a.xy", "a.xy")
    (tmp_path / "to").mkdir()
    with pytest.raises(PipelineError, match="is a link or a device"):
        unpack(tmp_path / "a.7z", tmp_path / "to", pattern="*", max_files=9, max_bytes=999)
    assert not list((tmp_path / "to").iterdir())


def test_access_rights_are_not_those_of_the_archive(tmp_path):
    def closed(entries) -> None:
        entries[0]["attributes"] = 0x8000 | (stat.S_IFREG | stat.S_ISUID) << 16

    (tmp_path / "a.7z").write_bytes(packed({"b/a.xy": "1 2\n"}, tamper=closed))
    (tmp_path / "to").mkdir()
    [file] = unpack(tmp_path / "a.7z", tmp_path / "to", pattern="*", max_files=9, max_bytes=99)
    new = tmp_path / "new"
    new.touch()
    assert file.stat().st_mode == new.stat().st_mode
    assert file.read_text() == "1 2\n"


def test_bounds_on_what_is_unpacked(tmp_path):
    with py7zr.SevenZipFile(tmp_path / "a.7z", "w") as archive:
        archive.writestr(b"\0" * (1 << 20), "a.xy")
        archive.writestr(b"\0", "b.xy")
    assert (tmp_path / "a.7z").stat().st_size < 1000
    (tmp_path / "to").mkdir()
    for files, size, says in ((1, 1 << 30, "2 entries in it"), (9, 1 << 20, "1048577 bytes")):
        with pytest.raises(PipelineError, match=says):
            unpack(tmp_path / "a.7z", tmp_path / "to", pattern="*", max_files=files, max_bytes=size)
    assert not list((tmp_path / "to").iterdir())
    with pytest.raises(OSError, match="No such file") as caught:  # not the archive's fault
        unpack(tmp_path / "a.7z", tmp_path / "none", pattern="*", max_files=9, max_bytes=1 << 30)
    assert caught.value.filename == str(tmp_path / "none")


@pytest.mark.parametrize("how", ["html", "empty", "cut", "damaged"])
def test_not_a_whole_archive(serve, tmp_path, how):
    whole = packed(small())
    damaged = bytearray(whole)
    damaged[100] ^= 0xFF
    content = {"html": b"<html>", "empty": b"", "cut": whole[:-200], "damaged": bytes(damaged)}
    site = serve(Site(content[how]))
    with pytest.raises(PipelineError, match=r"\.7z: not a 7z archive, or damaged: \S"):
        fetch(SMALL, tmp_path / "set", site=site.url)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({f"set/{name(3)}": pattern(3)}, "4 .xy files in it, not 3"),
        ({f"set/{name(2)}": "1 2 3\n" * 20}, "0003.xy: 3 columns, not 2"),
        ({f"set/{name(2)}": ""}, "0003.xy: 0 columns, not 2"),
        ({f"set/{name(2)}": "1 2\n3 x\n"}, "0003.xy line 2: not a row of numbers"),
        ({f"set/{name(2)}": pattern(2, points=21)}, "0003.xy: its axis differs"),
        ({f"set/{name(i)}": pattern(i, points=21) for i in range(3)}, "21 points a pattern"),
    ],
)
def test_other_files_than_expected(serve, tmp_path, changed, says):
    site = serve(Site(packed(small(**changed))))
    with pytest.raises(PipelineError, match=says):
        fetch(SMALL, tmp_path / "set", site=site.url)
    assert not list(tmp_path.iterdir())


def test_a_full_disk_loses_nothing(serve, tmp_path):
    site = serve(Site(packed(small())))
    part = tmp_path / "set.part"
    part.mkdir()
    (part / REAL.archive).symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left on device") as caught:
        fetch(SMALL, tmp_path / "set", site=site.url)
    assert caught.value.filename == str(part / REAL.archive)
    (part / REAL.archive).unlink()
    nothing_made(tmp_path)
    assert fetch(SMALL, tmp_path / "set", site=site.url).new


def test_a_folder_in_use(tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "mine.txt").touch()
    with pytest.raises(PipelineError, match="set: must be new, empty, or what was fetched"):
        fetch(SMALL, tmp_path / "set", site=NOWHERE)
    (tmp_path / "other.part").mkdir()
    handle = os.open(tmp_path / "other.part", os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    with pytest.raises(PipelineError, match=r"other\.part: another fetch is at work there"):
        fetch(SMALL, tmp_path / "other", site=NOWHERE)
    os.close(handle)


def test_command(serve, tmp_path, capsys, monkeypatch):
    assert dataset("mgfeo-ramp") is REAL
    monkeypatch.setitem(SETS, "mgfeo-ramp", SMALL)
    monkeypatch.chdir(tmp_path)
    site = serve(Site(packed(small())))
    assert main(["fetch", "mgfeo-ramp", "--site", site.url]) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[-3:] == [
        f"{tmp_path}/mgfeo-ramp: 3 patterns, sums in SHA256SUMS",
        f"source: {REAL.doi}: A[31m ramp; licence cc-by-4.0",
        "archive compared with the record's md5",
    ]
    assert main(["fetch", "mgfeo-ramp", "--site", NOWHERE]) == 0
    assert "3 patterns are there, as they were fetched" in capsys.readouterr().out
    assert main(["fetch", "mgfeo-ramp", "--out", "new", "--site", NOWHERE]) == 1
    error = capsys.readouterr().err
    assert error.startswith("phasewatch: http://127.0.0.1:9/records/4424866/files/Mg20")
    assert error.count("\n") == 1
    assert main(["fetch", "other"]) == 1
    assert "set 'other': there is none; sets are mgfeo-ramp" in capsys.readouterr().err
