"""Fixtures shared by all tests."""

import gc
import os
import re
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from .left import children, contexts

# One thread each, as the processes of a run have: there are as many workers as cores, and threads
# that wait for each other's turn spin. Read when numpy, torch and pyFAI are loaded, so later.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# No test depends on wall-clock time; and what lands is decided by the same examples each time.
settings.register_profile("here", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "here")


def pytest_collection_finish() -> None:
    """Keep what was imported out of later collections of garbage.

    pyFAI makes a full one whenever it loads a geometry: 0.25 s with all that torch and it bring, a
    millisecond without; and what a test leaves behind is looked for among fewer objects.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def data_dir() -> Path:
    root = Path(__file__).parents[1]
    path = Path(os.environ.get("PHASEWATCH_DATA", root.parent / "shared" / "data"))
    if not path.is_dir():
        pytest.skip("the real data are not here: set PHASEWATCH_DATA to their folder")
    return path


@pytest.fixture(autouse=True)
def no_debug(monkeypatch: pytest.MonkeyPatch) -> None:
    """Undo what `--debug` of an earlier test has set; both calls, or there is nothing to undo."""
    monkeypatch.setenv("PHASEWATCH_DEBUG", "")
    monkeypatch.delenv("PHASEWATCH_DEBUG")


@pytest.fixture(scope="session")
def plans_of_the_session(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the plans of this session are kept: pyFAI's import is most of a reducer's start."""
    return tmp_path_factory.mktemp("plans")


@pytest.fixture(autouse=True)
def plans_of_our_own(
    request: pytest.FixtureRequest, plans_of_the_session: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keep plans out of the user's cache; the tests of plans make each anew."""
    made_anew = request.path.parent.name == "calibration"
    monkeypatch.setenv("PHASEWATCH_CACHE", "" if made_anew else str(plans_of_the_session))


def _shared_memory() -> set[str]:
    """Return what is ours, or of a process that is no more: others may be at work here too."""
    names = {file.name for file in Path("/dev/shm").glob("phasewatch*")}
    pids = {name: set(re.findall(r"\d+", name)) - {str(os.getpid())} for name in names}
    return {name for name in names if not any(Path("/proc", pid).exists() for pid in pids[name])}


@pytest.fixture(scope="session")
def short_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A folder for temporary folders of ours alone; short, as addresses of sockets are."""
    tmp_path_factory.getbasetemp()  # decided before the environment says otherwise
    with tempfile.TemporaryDirectory(prefix="pw") as folder:
        yield folder


@pytest.fixture(autouse=True)
def nothing_left_behind(
    request: pytest.FixtureRequest, short_folder: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """Fails a test that leaves behind what a run is made of.

    Processes, threads, ZeroMQ contexts, named shared memory, folders of sockets.
    """
    folder = request.path.parent.name
    if folder not in ("pipeline", "plugins"):
        yield
        return
    monkeypatch.setattr(tempfile, "tempdir", short_folder)
    monkeypatch.setenv("TMPDIR", short_folder)
    processes, threads, memory = children(), set(threading.enumerate()), _shared_memory()
    n_contexts = contexts()
    yield
    assert children() <= processes, "a child process is left"
    ours = ("reader", "outlet")
    new = [t for t in threading.enumerate() if t not in threads]
    left = [t for t in new if not t.daemon or t.name in ours]
    assert not left, f"threads are left: {left}"
    assert contexts() <= n_contexts, "a ZeroMQ context is left open"
    assert _shared_memory() <= memory, "shared memory is left"
    assert not list(Path(short_folder).glob("phasewatch-*")), "a folder of sockets is left"
