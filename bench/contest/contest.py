"""A comparison from beginning to end: data, jobs that are not done yet, tables, pictures."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from phasewatch.bench.contest import hand_over, pictures, sweeps, table
from phasewatch.bench.contest.choose import open_data
from phasewatch.bench.contest.data import Data
from phasewatch.bench.contest.jobs import Job, chosen, recipes, table_jobs
from phasewatch.bench.contest.journal import Journal
from phasewatch.bench.contest.metrics import boundaries
from phasewatch.bench.contest.runner import Runner
from phasewatch.bench.contest.table import Column, Row
from phasewatch.pipeline.errors import PipelineError

# Told what goes on, how much of it is done, of how much (0: not known), and a word on it.
Tell = Callable[[str, int, int, str], None]


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """What was found on one contest's data."""

    data: Data
    columns: tuple[Column, ...]
    rows: list[Row]
    remarks: list[str]


@dataclass(frozen=True, slots=True, eq=False)
class Report:
    """The tables, and a line for each training that failed."""

    parts: list[Part]
    failures: list[str]


def run(
    specs: Sequence[str],
    *,
    models: str,
    recipe: str,
    seeds: int,
    labels: Path | None,
    out: Path,
    figures: bool,
    at_once: int,
    tell: Tell,
) -> Report:
    """Run what is not in `out` yet; write tables and pictures there.

    Raises
    ------
    PipelineError, ModelError
        An argument names nothing, data cannot be used, or `out` holds something else.
    """
    contenders, by = chosen(models), recipes(recipe)
    journal = Journal(out)
    contests, files = _open(specs, labels, out, tell)
    for data in contests:
        journal.enter(data)
    jobs = {d.name: table_jobs(d.name, contenders, by, seeds) for d in contests}
    wanted = [job for d in contests for job in jobs[d.name]]
    if figures:
        wanted += [job for d in contests for job in sweeps.jobs(d.name, by, seeds)]
    _train(wanted, journal, Runner(files, out / "answers", at_once=at_once), tell)
    parts = [_part(data, jobs[data.name], journal, out) for data in contests]
    if figures:
        for data in contests:
            sweeps.draw(out, data.name, by, seeds, journal.record)
    for data in contests:
        files[data.name].unlink()
    table.write_csv(
        out / "comparison.csv", [row for part in parts for row in part.rows], table.columns("order")
    )
    text = "\n".join(
        f"### {part.data.name}\n\n{table.markdown(part.rows, part.columns)}\n"
        + "".join(f"{remark}\n" for remark in part.remarks)
        for part in parts
    )
    (out / "comparison.md").write_text(text, encoding="utf-8")
    failed = {job.slug: (journal.record(job) or {}).get("error") for job in wanted}
    return Report(parts, [f"{slug}: {why}" for slug, why in failed.items() if why])


def _open(
    specs: Sequence[str], labels: Path | None, out: Path, tell: Tell
) -> tuple[list[Data], dict[str, Path]]:
    folder = out / "data"
    contests: list[Data] = []
    files = {}
    for spec in specs:
        data = open_data(
            spec,
            folder,
            labels=labels,
            progress=lambda what, done, total: tell(f"simulating {what}", done, total, ""),
        )
        if data.name in files:
            raise PipelineError(f"--data {spec}: {data.name} is there twice")
        files[data.name] = folder / f"{data.name}.handed.npz"
        folder.mkdir(parents=True, exist_ok=True)
        hand_over.write(data, files[data.name])
        contests.append(data)
    return contests, files


def _train(wanted: Sequence[Job], journal: Journal, runner: Runner, tell: Tell) -> None:
    missing = [job for job in wanted if journal.done(job) is None]
    done = len(wanted) - len(missing)
    tell("all", done, len(wanted), f"{done} done before" if done else "")
    journal.write()
    for job, result in runner.run(missing, lambda job, at, of: tell(job.slug, at, of, "")):
        journal.add(job, result)
        done += 1
        tell(job.slug, 1, 1, "")
        tell("all", done, len(wanted), "")


def _part(data: Data, jobs: Sequence[Job], journal: Journal, out: Path) -> Part:
    records = [record for job in jobs if (record := journal.record(job)) is not None]
    columns = table.columns(data.test.order_name)
    rows = table.rows(records, [column.field for column in columns])
    pictures.draw_boundaries(out / f"{data.name}.png", data, rows, records)
    n = len(data.test)
    true = boundaries(data.truth, data.truth_index, n, len(data.labels.classes))
    return Part(data, columns, rows, table.remarks(rows, n, true))
