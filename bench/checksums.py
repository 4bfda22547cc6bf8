"""SHA-256 sums of a folder's files, as ``sha256sum --check`` reads them."""

import hashlib
import re
from pathlib import Path

from phasewatch.pipeline.errors import PipelineError

SUMS = "SHA256SUMS"


def digest(path: Path, method: str = "sha256") -> str:
    """Return the sum of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, method).hexdigest()


def write_sums(folder: Path, files: list[Path], *, remarks: list[str]) -> None:
    """Write the sums of `files`, which lie in `folder`, below `remarks`, a line each."""
    lines = [f"# {remark}" for remark in remarks]
    lines += [f"{digest(file)}  {file.name}" for file in files]
    (folder / SUMS).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def compare_sums(folder: Path, *, pattern: str) -> int:
    """Compare the files in `folder` that match `pattern` with the sums; return how many there are.

    Raises
    ------
    PipelineError
        A file has changed, is missing, or has been added; or the sums cannot be read.
    """
    noted = {}
    for number, line in enumerate((folder / SUMS).read_text("utf-8", "replace").splitlines(), 1):
        if line.startswith("#"):
            continue
        found = re.fullmatch(r"([0-9a-f]{64})  ([^/]+)", line)
        if found is None:
            raise PipelineError(f"{folder / SUMS} line {number}: not a sum and a file name")
        noted[found[2]] = found[1]
    there = {file.name for file in folder.glob(pattern)}
    for name in sorted(there | noted.keys()):
        if name not in there:
            raise PipelineError(f"{folder / name}: is missing, but {SUMS} has it")
        if name not in noted:
            raise PipelineError(f"{folder / name}: is not in {SUMS}; it was not there at first")
        if digest(folder / name) != noted[name]:
            raise PipelineError(f"{folder / name}: has changed: its sum is not that in {SUMS}")
    return len(noted)
