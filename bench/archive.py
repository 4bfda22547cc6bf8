"""Unpacks 7z archives that come from elsewhere; nothing that they say of themselves is trusted."""

import stat
import tempfile
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

import py7zr
from py7zr.py7zr import ArchiveFile

from phasewatch.pipeline.errors import PipelineError, one_line


def unpack(
    archive: Path, folder: Path, *, pattern: str, max_files: int, max_bytes: int
) -> list[Path]:
    """Unpack the files of `archive` whose name matches `pattern` into `folder`, side by side.

    The whole archive is refused for one entry that is not a plain file or folder, or whose path
    climbs out, also where its name does not match.

    Parameters
    ----------
    folder
        Exists; subfolders of the archive are not made in it.
    pattern
        Of the last part of the path, such as ``*.xy``.
    max_files, max_bytes
        Bounds on the number of entries and on what they come to, unpacked.

    Returns
    -------
    list of Path
        The files, by name.

    Raises
    ------
    PipelineError
        Not a 7z archive, damaged, hostile, or beyond a bound.
    OSError
        `folder` cannot be written to: the disk is full.
    """
    try:
        with (
            archive.open("rb") as file,  # of an open file, py7zr makes no threads
            py7zr.SevenZipFile(file, max_extract_size=max_bytes) as content,
            tempfile.TemporaryDirectory(dir=folder) as inner,
        ):
            entries = list(content.files)
            _refuse(archive, entries, max_files, max_bytes)
            plain = [entry.filename for entry in entries if not entry.is_directory]
            wanted = {PurePosixPath(name).name: name for name in reversed(plain)}
            wanted = {k: v for k, v in wanted.items() if fnmatchcase(k, pattern)}
            content.extract(inner, targets=list(wanted.values()))
            return [_settle(Path(inner, wanted[k]), folder / k) for k in sorted(wanted)]
    except PipelineError:
        raise
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(folder)) from error
    except Exception as error:  # what py7zr raises for a damaged archive is of many kinds
        raise PipelineError(
            f"{archive}: not a 7z archive, or damaged: {one_line(error)}"
        ) from error


def _refuse(archive: Path, entries: list[ArchiveFile], max_files: int, max_bytes: int) -> None:
    """Raise for the first thing that an honest archive has not."""
    if len(entries) > max_files:
        raise PipelineError(f"{archive}: {len(entries)} entries in it, more than {max_files}")
    size = sum(entry.uncompressed for entry in entries)
    if size > max_bytes:
        raise PipelineError(f"{archive}: {size} bytes unpacked, more than {max_bytes}")
    seen: set[str] = set()
    for entry in entries:
        name = entry.filename
        parts = name.replace("\\", "/").split("/")
        if not name.isprintable() or parts[0] == "" or parts[0].endswith(":") or ".." in parts:
            raise PipelineError(f"{archive}: {name!r} leads out of the folder it is unpacked to")
        links = entry.is_symlink or entry.is_junction
        if links or entry.st_fmt not in (None, 0, stat.S_IFREG, stat.S_IFDIR):
            raise PipelineError(f"{archive}: {name!r} is a link or a device, not a file")
        last = PurePosixPath(name).name
        if not entry.is_directory:
            if last in seen:
                raise PipelineError(f"{archive}: {last!r} is in it more than once")
            seen.add(last)


def _settle(file: Path, target: Path) -> Path:
    """Move an unpacked file to where it is to lie, with the access of any new file."""
    target.touch()
    file.chmod(stat.S_IMODE(target.stat().st_mode))
    return file.replace(target)
