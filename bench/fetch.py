"""Fetches published sets of patterns from Zenodo."""

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from pydantic import BaseModel, ValidationError

from phasewatch.bench.archive import unpack
from phasewatch.bench.checksums import SUMS, compare_sums, digest, write_sums
from phasewatch.bench.download import download, read
from phasewatch.models.errors import ModelError
from phasewatch.models.series import read_series
from phasewatch.pipeline.errors import PipelineError

SITE = "https://zenodo.org"
PATTERN = "[!.]*.xy"  # not the ._*.xy of macOS
MAX_RECORD = 1 << 22
MAX_ARCHIVE = 1 << 28  # a set is some 40 MB of text
MAX_UNPACKED = 1 << 29
MAX_ENTRIES = 2000

Progress = Callable[[str, int, int | None], None]


@dataclass(frozen=True, slots=True)
class Dataset:
    """A set of patterns: ``.xy`` files of two columns, in an archive of a record of Zenodo."""

    record: int
    archive: str
    files: int
    points: int

    @property
    def doi(self) -> str:
        """Return the record's address."""
        return f"https://doi.org/10.5281/zenodo.{self.record}"


SETS = {
    # Yue Sun, PhD thesis, University of Szeged, 2023, section 2.1
    "mgfeo-ramp": Dataset(
        record=4424866,
        archive="Mg20Fe80O_ramp_xyfiles_1_349_azimuthal_integrated.7z",
        files=349,
        points=4023,
    )
}


@dataclass(frozen=True, slots=True)
class Fetched:
    """What came of it: `folder` with `files`, which are `new` or were there.

    `source` is the record's title and licence, `checked` what the archive was compared with;
    both are empty where nothing was fetched.
    """

    folder: Path
    files: int
    new: bool
    source: str = ""
    checked: str = ""


def dataset(name: str) -> Dataset:
    """Return a set by its name.

    Raises
    ------
    PipelineError
        There is none of that name.
    """
    if name not in SETS:
        raise PipelineError(f"set {name!r}: there is none; sets are {', '.join(SETS)}")
    return SETS[name]


def fetch(
    data: Dataset,
    out: Path,
    *,
    site: str = SITE,
    progress: Progress = lambda what, done, total: None,
) -> Fetched:
    """Make `out` a folder with the files of `data` and their sums; where it is one, compare these.

    What is not whole lies in ``OUT.part``, where a later call goes on; `out` appears at once.

    Parameters
    ----------
    site
        Where the record is.
    progress
        Called with what is being done, how much of it is, and of how much (None: not known).

    Raises
    ------
    PipelineError
        The site cannot be reached, the archive is not what it should be, or `out` is in use or has
        changed since.
    OSError
        The disk is full, or `out` cannot be written.
    """
    out = out.resolve()
    if (out / SUMS).is_file():
        there = compare_sums(out, pattern=PATTERN)
        if there != data.files:
            raise PipelineError(f"{out / SUMS}: {there} files in it, not {data.files}")
        return Fetched(out, there, new=False)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise PipelineError(f"{out}: must be new, empty, or what was fetched before")
    part = out.with_name(f"{out.name}.part")
    part.mkdir(parents=True, exist_ok=True)
    archive = part / data.archive
    files = part / "files"
    with _alone(part):
        record, missing = _record(data, site)
        download(
            f"{site}/records/{data.record}/files/{quote(data.archive)}?download=1",
            archive,
            limit=MAX_ARCHIVE,
            progress=lambda done, total: progress("downloading", done, total),
        )
        try:
            checked = _compare(archive, record) if record else f"with nothing: {missing}"
            unpacked = _unpacked(data, archive, files, progress)
            source = f"{data.doi}: {record.described()}" if record else data.doi
            remarks = [source, f"{data.archive}: sha256 {digest(archive)}"]
            write_sums(files, unpacked, remarks=remarks)
            files.rename(out)
        except PipelineError as error:
            shutil.rmtree(part)  # the next call is not to go on from it
            raise PipelineError(f"{error} (it was removed)") from error
        finally:
            shutil.rmtree(files, ignore_errors=True)
        shutil.rmtree(part)
    return Fetched(out, len(unpacked), new=True, source=source, checked=checked)


def _unpacked(data: Dataset, archive: Path, folder: Path, progress: Progress) -> list[Path]:
    """Unpack `archive` to `folder`; raise where the files are not as `data` says."""
    shutil.rmtree(folder, ignore_errors=True)  # of an earlier call
    folder.mkdir()
    progress("unpacking", 0, None)
    files = unpack(archive, folder, pattern=PATTERN, max_files=MAX_ENTRIES, max_bytes=MAX_UNPACKED)
    if len(files) != data.files:
        raise PipelineError(f"{archive}: {len(files)} .xy files in it, not {data.files}")
    progress("checking", 0, None)
    for file in files:
        columns = len(file.read_bytes().rstrip().rpartition(b"\n")[2].split())
        if columns != 2:
            raise PipelineError(f"{archive}: {file.name}: {columns} columns, not 2")
    try:
        points = len(read_series(folder).axis)
    except ModelError as error:
        raise PipelineError(f"{archive}: {str(error).replace(f'{folder}/', '')}") from None
    if points != data.points:
        raise PipelineError(f"{archive}: {points} points a pattern, not {data.points}")
    return files


class _File(BaseModel):
    key: str
    checksum: str = ""  # md5:...


class _Licence(BaseModel):
    id: str = ""


class _Metadata(BaseModel):
    title: str | None = None
    license: _Licence | None = None


class _Record(BaseModel):
    """What we use of a record of Zenodo's REST API."""

    files: list[_File]
    metadata: _Metadata = _Metadata()

    def described(self) -> str:
        """Return title and licence, a line of plain text."""
        licence = (self.metadata.license and self.metadata.license.id) or "not named"
        text = f"{self.metadata.title or 'without title'}; licence {licence}"
        return "".join(c for c in " ".join(text.split()) if c.isprintable())


def _record(data: Dataset, site: str) -> tuple[_Record | None, str]:
    """Return the record, or None and why: files may be within reach where it is not."""
    url = f"{site}/api/records/{data.record}"
    try:
        return _Record.model_validate_json(read(url, limit=MAX_RECORD)), ""
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        return None, f"{url}: {field + ': ' if field else ''}{first['msg']}"
    except PipelineError as error:
        return None, str(error)


def _compare(archive: Path, record: _Record) -> str:
    """Compare `archive` with the sum in the record; say what was compared."""
    wanted = {file.key: file.checksum for file in record.files}.get(archive.name, "")
    method, _, value = wanted.partition(":")
    if method not in ("md5", "sha256") or not value:
        return f"with nothing: the record has no md5 of {archive.name}"
    found = digest(archive, method)
    if found != value:
        raise PipelineError(f"{archive}: {method} {found}, but the record has {value}")
    return f"with the record's {method}"


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Refuse to work in a folder in which another process does; leave none that is empty."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise PipelineError(f"{folder}: another fetch is at work there") from None
    try:
        yield
    finally:
        with suppress(OSError):
            folder.rmdir()
        os.close(handle)
