"""``comparison.json``: all trainings so far, written anew after each, so that a run can go on."""

import hashlib
import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from phasewatch.bench.contest.data import Data
from phasewatch.bench.contest.jobs import Job
from phasewatch.bench.machine import describe
from phasewatch.pipeline.errors import PipelineError

FILE = "comparison.json"
Record = dict[str, Any]


class Journal:
    """The records of a folder, by job and by the digest of the data."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE
        self._data: dict[str, Any] = {}
        self._records: dict[tuple[str, str], Record] = {}
        if self._path.exists():
            self._read()

    def _read(self) -> None:
        try:
            document = json.loads(self._path.read_text(encoding="utf-8"))
            self._data = dict(document["data"])
            for record in document["trials"]:
                job = Job(**{key: record[key] for key in Job.__dataclass_fields__})
                self._records[job.key, record["digest"]] = record
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise PipelineError(
                f"{self._path}: not the record of a comparison ({error}); give another --out"
            ) from None

    def enter(self, data: Data) -> None:
        """Note what `data` is; results on other data of that name no longer count."""
        about = data.describe()
        digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()
        self._data[data.name] = {"digest": digest, **about}

    def done(self, job: Job) -> Record | None:
        """Return the record of `job`, if it came to an end on these data."""
        record = self._records.get((job.key, self._data[job.data]["digest"]))
        return record if record is not None and "error" not in record else None

    def record(self, job: Job) -> Record | None:
        """Return the record of `job` on these data, a failure too."""
        return self._records.get((job.key, self._data[job.data]["digest"]))

    def add(self, job: Job, result: dict[str, Any]) -> None:
        """Keep the result of `job`, and write the file."""
        digest = self._data[job.data]["digest"]
        self._records[job.key, digest] = {**asdict(job), "digest": digest, **result}
        self.write()

    def write(self) -> None:
        """Write the file; one that is read meanwhile is whole."""
        document = {
            "machine": describe(),
            "data": self._data,
            "trials": list(self._records.values()),
        }
        partial = self._path.with_suffix(".partial")
        partial.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        os.replace(partial, self._path)
