"""A LAMBDA run that is followed while it is written: whatever is seen of it, what comes is right.

Waiting advances a clock and lets the detector go on; nothing sleeps. Files change as they do on a
disk: bytes are written into them in place (another process would do it).
"""

import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from structlog.testing import capture_logs

from phasewatch.pipeline.batch import Batch, Failure
from phasewatch.pipeline.documents import RunStart
from phasewatch.pipeline.errors import PipelineError
from phasewatch.pipeline.plugin import open_source
from phasewatch.plugins.sources import lambda_watch
from phasewatch.plugins.sources.lambda_follow import LambdaFollow
from phasewatch.plugins.sources.lambda_listing import Folder

DETECTOR = "entry/instrument/detector"
Write = Callable[..., Path]
Row = tuple[int, int, str]  # seq, id, and the digest of the frame or the error


class World:
    """A detector that takes the next of its `steps` every `every` seconds of waiting."""

    def __init__(self, steps: Iterator[Any] | None = None, every: float = 2.0) -> None:
        self.now = 100.0
        self._steps, self._every, self._next = steps, every, 100.0 + every
        self.waited = 0

    def clock(self) -> float:
        return self.now

    def wait(self, seconds: float) -> None:
        assert 0 < seconds <= 0.1, "a run can be stopped only between waits"
        self.now += seconds
        self.waited += 1
        assert self.waited < 20_000, "it waits for ever"
        if self._steps is not None and self.now >= self._next:
            self._next = self.now + self._every
            next(self._steps, None)


def put(path: Path, content: bytes) -> None:
    """Make `content` that of `path`, in place."""
    path.parent.mkdir(exist_ok=True)
    with path.open("r+b" if path.exists() else "wb") as file:
        file.truncate(len(content))
        file.write(content)


def follow(
    target: Path | str, world: World, modules: int = 3, idle: float | None = 30.0
) -> LambdaFollow:
    label = f"lambda-nexus:{target}"
    return LambdaFollow(
        label, Folder(str(target)), modules, idle, clock=world.clock, wait=world.wait
    )


def rows(source: Any) -> list[Row]:
    found: list[Row] = []
    for item in source:
        if isinstance(item, Failure):
            found.append((item.seq, item.id, item.error))
        elif isinstance(item, Batch):
            assert set(item.arrays) == {"frame"}
            assert item.t_acq is None
            frames = (hashlib.sha256(frame.tobytes()).hexdigest() for frame in item.arrays["frame"])
            found += zip(item.seq.tolist(), item.ids.tolist(), frames, strict=True)
    source.close()
    assert [seq for seq, *_ in found] == list(range(found[0][0], found[0][0] + len(found)))
    return found


def archived(target: Path) -> tuple[RunStart, list[Row]]:
    source = open_source(f"lambda-nexus:{target}")
    run = source.start()
    return run, rows(source)


def followed(target: Path, world: World, **options: Any) -> tuple[RunStart, list[Row]]:
    source = follow(target, world, **options)
    run = source.start()
    return run, rows(source)


def name(module: int, part: int) -> str:
    return f"run7_m{module}_part{part:05d}.nxs"


def with_rows(path: Path, n: int, numbers: int | None = None) -> bytes:
    """Return `path` as it was when it held `n` frames, and as many or more numbers."""
    copy = path.with_suffix(".short")
    with h5py.File(path) as whole, h5py.File(copy, "w") as file:
        whole.copy(DETECTOR, file.create_group("entry/instrument"), "detector")
        group = file[DETECTOR]
        for key, stop in (("data", n), ("sequence_number", n if numbers is None else numbers)):
            values = group[key][:stop]
            del group[key]
            group[key] = values
    content = copy.read_bytes()
    copy.unlink()
    return content


@pytest.fixture
def made(lambda_run: Write) -> Path:
    """A finished run of 3 modules, 3 parts of 4 frames."""
    return lambda_run()


def test_a_run_that_is_complete_gives_what_the_archive_does(made: Path) -> None:
    run, expected = archived(made)
    world = World()
    again, got = followed(made, world, idle=None)  # it ends by the planned number
    assert got == expected
    assert len(got) == 12
    assert (again.run_id, again.items, again.expected) == (run.run_id, run.items, 12)
    assert again.saturation == run.saturation
    np.testing.assert_array_equal(again.constants["mask"], run.constants["mask"])


def test_real_run_in_pieces(data_dir: Path, tmp_path: Path) -> None:
    """Each file comes in four pieces, modules one after the other, the last a part behind."""
    real = data_dir / "lambda_p022"
    files = {path.name: path.read_bytes() for path in sorted(real.glob("*.nxs"))}
    folder = tmp_path / "raw"
    order = [(m, p if m < 3 else p - 1) for p in range(6) for m in (1, 2, 3)]

    def detector() -> Iterator[None]:
        for module, part in order:
            content = files.get(f"testasapo1_1009_00002_m{module}_part{part:05d}.nxs")
            for quarter in (1, 2, 3, 4) if content else ():
                path = folder / f"testasapo1_1009_00002_m{module}_part{part:05d}.nxs"
                put(path, content[: len(content) * quarter // 4])
                yield

    world = World(detector(), every=0.7)
    source = follow(folder, world, idle=None)
    run = source.start()
    assert world.now > 102, "it had to wait for the third module"
    first_part = iter(source)
    first = next(item for item in first_part if item is not None)
    assert first.ids.tolist() == [1]
    assert not (folder / "testasapo1_1009_00002_m1_part00003.nxs").exists(), "at once"
    got = [(0, 1, hashlib.sha256(first.arrays["frame"][0].tobytes()).hexdigest())]
    got += rows_of(first_part)
    source.close()
    assert got == archived(real)[1]
    assert run.expected == 50


def rows_of(items: Iterator[Any]) -> list[Row]:
    batches = [item for item in items if item is not None]
    assert all(isinstance(item, Batch) for item in batches)
    return [
        (seq, number, hashlib.sha256(frame.tobytes()).hexdigest())
        for b in batches
        for seq, number, frame in zip(b.seq, b.ids, b.arrays["frame"], strict=True)
    ]


def test_half_written_parts(made: Path, tmp_path: Path) -> None:
    """Module 1 gives row by row, 2 numbers before rows, 3 a file that cannot be opened at first."""
    folder = tmp_path / "live"

    def detector() -> Iterator[None]:
        for part in range(3):
            for rows_now in (1, 2, 4):
                put(folder / name(1, part), with_rows(made / name(1, part), rows_now))
                put(folder / name(2, part), with_rows(made / name(2, part), rows_now, 4))
                put(folder / name(3, part), (made / name(3, part)).read_bytes()[: 900 * rows_now])
                yield
            put(folder / name(3, part), (made / name(3, part)).read_bytes())
            yield

    assert followed(folder, World(detector()), idle=None)[1] == archived(made)[1]


def test_frames_come_as_soon_as_all_modules_have_them(made: Path, tmp_path: Path) -> None:
    folder, given = tmp_path / "live", []

    def detector() -> Iterator[None]:
        for m in (1, 2, 3):
            put(folder / name(m, 0), with_rows(made / name(m, 0), 3 if m == 2 else 4))
        yield
        assert given == [1, 2, 3], "the fourth is there of two modules"
        put(folder / name(2, 0), (made / name(2, 0)).read_bytes())
        yield
        assert given == [1, 2, 3, 4]

    source = follow(folder, World(detector(), every=3.0), idle=9.0)
    source.start()
    for item in source:
        if item is not None:
            given += item.ids.tolist()
    assert given == [1, 2, 3, 4]


def test_unchanged_parts_are_not_read_again(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    real = h5py.File.__init__

    def counted(self: h5py.File, path: Any, *args: Any, **options: Any) -> None:
        if isinstance(path, Path):  # not the handle of a file that is open
            opened.append(path.name)
        real(self, path, *args, **options)

    monkeypatch.setattr(h5py.File, "__init__", counted)
    (made / name(3, 2)).unlink()
    world = World()
    got = followed(made, world, idle=60.0)[1]
    assert world.waited > 600
    assert len(got) == 12
    assert len(set(opened)) == 8
    assert max(opened.count(one) for one in opened) == 5, "itself, a digest, the mask, frames twice"


def test_lost_frame_fails_once_its_module_has_later_ones(made: Path, tmp_path: Path) -> None:
    folder, seen = tmp_path / "live", []

    def detector() -> Iterator[None]:
        for m in (1, 2, 3):
            put(folder / name(m, 0), (made / name(m, 0)).read_bytes())
        with h5py.File(made / name(2, 1), "r+") as file:
            for key in ("data", "sequence_number"):
                values = file[f"{DETECTOR}/{key}"][:]
                del file[f"{DETECTOR}/{key}"]
                file[f"{DETECTOR}/{key}"] = np.delete(values, 1, 0)  # 6
        yield
        for m in (1, 3):
            put(folder / name(m, 1), (made / name(m, 1)).read_bytes())
        yield
        assert [i for _, i, _ in seen] == [1, 2, 3, 4], "module 2 may still bring 5"
        put(folder / name(2, 1), (made / name(2, 1)).read_bytes())
        yield
        assert [i for _, i, _ in seen] == [1, 2, 3, 4, 5, 6, 7, 8]

    source = follow(folder, World(detector(), every=4.0), idle=15.0)
    source.start()
    for item in source:
        if isinstance(item, Failure):
            seen.append((item.seq, item.id, item.error))
        elif item is not None:
            seen += zip(item.seq.tolist(), item.ids.tolist(), [""] * len(item), strict=True)
    assert [(seq, i) for seq, i, _ in seen] == [(i - 1, i) for i in range(1, 9)]
    assert [error for *_, error in seen if error] == [
        f"frame 6: module 2 missing: no such sequence_number in {folder / name(2, 1)} "
        f"or its other parts"
    ]


def test_time_in_which_the_chain_does_not_take_frames_is_not_idle(
    made: Path, tmp_path: Path
) -> None:
    """Neither for the end of the run nor for parts that were not at rest when last looked at."""
    folder, world = tmp_path / "live", World()

    def steps() -> Iterator[None]:
        for part in range(3):
            for module in (1, 2, 3):
                put(folder / name(module, part), (made / name(module, part)).read_bytes())
            yield

    detector, found = steps(), []
    next(detector)
    source = follow(folder, world, idle=20.0)
    source.start()
    for item in source:
        if item is not None:
            found += item.ids.tolist()
            next(detector, None)
        world.now += 1000.0
    assert found == list(range(1, 13))


@pytest.mark.parametrize("kind", ["absent", "cut", "noise"])
def test_part_that_never_comes_fails_its_frames_alone(made: Path, kind: str) -> None:
    bad = made / name(2, 1)
    content = bad.read_bytes()
    if kind == "absent":
        bad.unlink()
    else:
        bad.write_bytes(content[:3000] if kind == "cut" else os.urandom(3000))
    expected = archived(made)[1]
    world = World()
    got = followed(made, world, idle=None)[1]
    assert got == expected
    assert [i for _, i, what in got if str(bad) in what] == [5, 6, 7, 8]
    assert 109 < world.now < 115, "it is waited for, and not for ever"


def test_part_that_becomes_readable_late_is_waited_for(made: Path, tmp_path: Path) -> None:
    """A later part of the same module is there first, as a network disk may show it."""
    whole, late = archived(made)[1], made / name(2, 1)
    content = late.read_bytes()
    late.unlink()

    def detector() -> Iterator[None]:
        put(late, content[:2000])
        yield
        put(late, content)
        yield

    assert followed(made, World(detector(), every=4.0), idle=None)[1] == whole


def test_frames_that_turn_up_too_late_are_failures(made: Path) -> None:
    """Of parts that no module had when the later ones were given."""
    contents = {m: (made / name(m, 1)).read_bytes() for m in (1, 2, 3)}
    for m in contents:
        (made / name(m, 1)).unlink()
        put(made / name(m, 2), with_rows(made / name(m, 2), 3))

    def detector() -> Iterator[None]:
        for m, content in contents.items():
            put(made / name(m, 1), content)
        yield

    got = followed(made, World(detector(), every=8.0), idle=20.0)[1]
    late = [(seq, i) for seq, i, what in got if "came after frame 11 was given" in what]
    assert late == [(7, 5), (8, 6), (9, 7), (10, 8)]
    assert [i for _, i, _ in got[:7]] == [1, 2, 3, 4, 9, 10, 11]


def test_end_of_an_aborted_run(made: Path) -> None:
    for m in (1, 3):
        (made / name(m, 2)).unlink()
    with capture_logs() as logs:
        got = followed(made, world := World(), idle=20.0)[1]
    assert [i for _, i, _ in got] == list(range(1, 13))
    assert [what for _, i, what in got if i > 8] == [
        f"frame {n}: module 1 missing: file {made / name(1, 2)} not found" for n in range(9, 13)
    ]
    assert 120 < world.now < 125
    assert [log["event"] for log in logs if log["log_level"] == "warning"] == [
        "waiting for modules",
        "idle: the run is over",
    ]
    assert (logs[0]["modules"], logs[0]["after"]) == ([1, 3], 8)


def test_frame_that_no_module_has_does_not_keep_the_run_open(made: Path) -> None:
    for m in (1, 2, 3):
        with h5py.File(made / name(m, 1), "r+") as file:
            for key in ("data", "sequence_number"):
                values = file[f"{DETECTOR}/{key}"][:]
                del file[f"{DETECTOR}/{key}"]
                file[f"{DETECTOR}/{key}"] = np.delete(values, 2, 0)
    run, got = followed(made, World(), idle=None)
    assert [i for _, i, _ in got] == [1, 2, 3, 4, 5, 6, 8, 9, 10, 11, 12]
    assert run.expected == 12


def test_counter_that_does_not_begin_at_1(made: Path) -> None:
    """The detector counts on: the highest number says nothing of how many have come."""
    for path in made.iterdir():
        with h5py.File(path, "r+") as file:
            file[f"{DETECTOR}/sequence_number"][...] += 5000
    kept = (made / name(2, 2)).read_bytes()
    (made / name(2, 2)).unlink()

    def detector() -> Iterator[None]:
        put(made / name(2, 2), kept)
        yield

    got = followed(made, World(detector(), every=6.0), idle=None)[1]
    assert [i for _, i, _ in got] == list(range(5001, 5013))


@pytest.mark.parametrize("there", [False, True])
def test_run_that_does_not_begin(tmp_path: Path, there: bool) -> None:
    folder = tmp_path / "raw"
    if there:
        folder.mkdir()
    world = World()
    with capture_logs() as logs, pytest.raises(PipelineError) as error:
        follow(folder, world, idle=20.0).start()
    assert str(error.value) == (
        f"lambda-nexus:{folder}: no run in 20.0 s: no file named RUN_m1_part00000.nxs or alike"
    )
    assert [log["event"] for log in logs] == ["waiting for a run"]
    assert 120 < world.now < 121


def test_module_that_does_not_begin(made: Path) -> None:
    for part in range(3):
        (made / name(3, part)).unlink()
    (made / name(3, 0)).write_bytes(b"")
    with pytest.raises(PipelineError) as error:
        follow(made, World(), idle=20.0).start()
    assert f"no run in 20.0 s: module 3 has no frame yet: file {made / name(3, 0)} is empty" in str(
        error.value
    )


def test_run_that_begins_late_in_a_folder_that_is_made_late(made: Path, tmp_path: Path) -> None:
    folder = tmp_path / "later"

    def detector() -> Iterator[None]:
        yield
        yield
        for path in made.iterdir():
            put(folder / path.name, path.read_bytes())

    assert followed(folder, World(detector()), idle=None)[1] == archived(made)[1]


def test_only_the_run_that_began_is_followed(lambda_run: Write) -> None:
    folder = lambda_run("run7")
    expected = archived(folder)[1]
    kept = {path: path.read_bytes() for path in folder.glob("*part00002.nxs")}
    for path in kept:
        path.unlink()

    def detector() -> Iterator[None]:
        lambda_run("run8")
        yield
        for path, content in kept.items():
            put(path, content)
        yield

    assert followed(folder, World(detector(), every=6.0), idle=None)[1] == expected
    with pytest.raises(PipelineError, match="2 runs; name one"):
        follow(folder, World()).start()
    run = follow(folder / "run8", World()).start()
    assert run.run_id == "run8"


def test_a_module_too_many(made: Path) -> None:
    with pytest.raises(PipelineError, match=r"from 1 to 2; there is module 3: .*m3_part00000.nxs"):
        follow(made, World(), modules=2).start()


@pytest.mark.parametrize("kind", ["other frames", "fewer frames", "shrunk"])
def test_another_run_of_the_same_name(made: Path, kind: str) -> None:
    path = made / name(2, 0)
    (made / name(3, 2)).unlink()

    def detector() -> Iterator[None]:
        if kind == "other frames":  # of the same numbers
            with h5py.File(path, "r+") as file:
                file[f"{DETECTOR}/data"][0, 0, 0] += 1
        elif kind == "fewer frames":
            put(path, with_rows(path, 2))
        else:
            put(path, path.read_bytes()[:800])
        yield

    source = follow(made, World(detector(), every=6.0), idle=30.0)
    source.start()
    with pytest.raises(PipelineError) as error:
        list(source)
    source.close()
    assert str(path) in str(error.value)
    expected = "has shrunk from" if kind == "shrunk" else "is not the one that was read before"
    assert expected in str(error.value)
    assert "\n" not in str(error.value)


def test_touched_files_are_the_same_files(made: Path) -> None:
    def detector() -> Iterator[None]:
        for path in made.iterdir():
            os.utime(path, ns=(0, 1))
        yield

    last = (made / name(1, 2)).read_bytes()
    expected = archived(made)[1]
    put(made / name(1, 2), with_rows(made / name(1, 2), 2))

    def rest() -> Iterator[None]:
        yield from detector()
        put(made / name(1, 2), last)
        yield

    assert followed(made, World(rest(), every=6.0), idle=None)[1] == expected


def test_a_disk_that_goes_away_comes_back(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = archived(made)[1]
    last = (made / name(1, 2)).read_bytes()
    (made / name(1, 2)).unlink()
    real = Path.iterdir

    def stale(self: Path) -> Any:
        raise OSError(116, "Stale file handle", str(self))

    def detector() -> Iterator[None]:
        monkeypatch.setattr(Path, "iterdir", stale)
        yield
        put(made / name(1, 2), last)
        yield
        monkeypatch.setattr(Path, "iterdir", real)
        yield

    with capture_logs() as logs:
        assert followed(made, World(detector(), every=4.0), idle=None)[1] == expected
    assert [log["event"] for log in logs] == ["cannot look now", "waiting for modules"]


@pytest.mark.parametrize("n", [0, 1, 5, 12])
def test_resume(made: Path, n: int) -> None:
    (made / name(2, 1)).unlink()
    run, whole = followed(made, World(), idle=None)
    source = follow(made, World(), idle=None)
    source.resume(run, n)
    assert [item for item in source if item is not None] == [] if n == 12 else True
    if n < 12:
        source = follow(made, World(), idle=None)
        source.resume(run, n)
        assert rows(source) == whole[n:]


def test_another_run_is_not_resumed(made: Path) -> None:
    run, _ = followed(made, World(), idle=None)
    with h5py.File(made / name(3, 0), "r+") as file:
        file[f"{DETECTOR}/data"][0, 3, 3] += 1
    with pytest.raises(PipelineError, match="has changed since the run began: digests"):
        follow(made, World(), idle=None).resume(run, 3)


def test_lent_memory_and_chunks(made: Path) -> None:
    """Frames are written where the receiver wants them, and their chunks come along."""
    for path in made.iterdir():
        with h5py.File(path, "r+") as file:
            data = file[f"{DETECTOR}/data"][:]
            del file[f"{DETECTOR}/data"]
            file.create_dataset(
                f"{DETECTOR}/data", data=data, chunks=(1, 20, 30), compression="gzip"
            )
    expected = archived(made)[1]
    source = follow(made, World(), idle=None)
    run = source.start()
    lent: list[np.ndarray] = []

    def allocate(n: int) -> dict[str, np.ndarray]:
        lent.append(np.full((1, *run.items["frame"].shape), 77, run.items["frame"].dtype))
        return {"frame": lent[-1]}

    source.lend(allocate)
    packing = source.pack(lambda: True)
    assert packing is not None
    assert (packing.codec, len(packing.tiles)) == ("deflate", 3)
    batches = [item for item in source if item is not None]
    source.close()
    assert rows_of(iter(batches)) == expected
    assert len(lent) == 12
    for batch, memory in zip(batches, lent, strict=True):
        assert isinstance(batch, Batch)
        assert np.shares_memory(batch.arrays["frame"], memory)
        assert len(batch.packed) == 1
        assert len(batch.packed[0]) == 3


def test_no_lock_is_taken(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader's lock would make a detector fail that opens its file again to write."""
    import fcntl

    source = follow(made, World(), idle=None)
    source.start()
    items = (item for item in source if item is not None)
    next(items)
    with (made / name(1, 0)).open("r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # raises where somebody has one
        next(items)
    source.close()


def test_keys() -> None:
    with pytest.raises(PipelineError, match="follow needs modules"):
        open_source("lambda-nexus:run", follow=True)
    with pytest.raises(PipelineError, match="idle_timeout_s: only with follow = true"):
        open_source("lambda-nexus:run", idle_timeout_s=3)
    open_source("lambda-nexus:run", follow=True, modules=3, idle_timeout_s=3).close()


def test_part_that_grows_is_waited_for_though_a_later_one_is_there(made: Path) -> None:
    """Part 0 of module 2 changes at every look, while part 1 is at rest."""
    expected = archived(made)[1]
    path, content = made / name(2, 0), (made / name(2, 0)).read_bytes()
    later = {m: (made / name(m, 1)).read_bytes() for m in (1, 2, 3)}
    put(path, with_rows(path, 2))
    for module in later:
        (made / name(module, 1)).unlink()
        (made / name(module, 2)).rename(made / f"kept{module}")

    def detector() -> Iterator[None]:
        yield from [None] * 10
        for module, part in later.items():
            put(made / name(module, 1), part)
        for turn in range(8):
            os.utime(path, ns=(0, turn))
            yield
        put(path, content)
        for module in later:
            (made / f"kept{module}").rename(made / name(module, 2))
        yield

    assert followed(made, World(detector(), every=0.45), idle=None)[1] == expected


def test_part_that_is_written_while_it_is_read_is_read_again(
    made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, whole = made / name(1, 0), (made / name(1, 0)).read_bytes()
    put(path, with_rows(path, 2))
    read = lambda_watch.read_part

    def slowly(file: Path) -> Any:
        part = read(file)
        put(file, whole)
        return part

    monkeypatch.setattr(lambda_watch, "read_part", slowly)
    world = World()
    watch = lambda_watch.PartWatch(1, world.clock)
    assert watch.look({(1, 0): path}) == []
    assert watch.look({(1, 0): path}) == []
    assert watch.parts() == {}
    monkeypatch.setattr(lambda_watch, "read_part", read)
    watch.look({(1, 0): path})
    [part] = watch.look({(1, 0): path})
    assert part.rows == 4
