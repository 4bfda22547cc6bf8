"""Which part files of a run there are by now: those of a folder, or those that others name."""

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from phasewatch.plugins.sources.lambda_files import Key, list_run


class Listing(Protocol):
    """Knows which files of the run there are by now.

    Attributes
    ----------
    over
        No more will come.
    """

    over: bool

    def __call__(self) -> tuple[str, Mapping[Key, Path]]:
        """Return the run's name and its files; raises PipelineError, OSError for "not now"."""

    def close(self) -> None:
        """Let go of what it listens to."""


class Folder:
    """The files of the one run that `target` names; once one is there, of this run alone."""

    over = False

    def __init__(self, target: str) -> None:
        self._target = target
        self._name: str | None = None

    def __call__(self) -> tuple[str, Mapping[Key, Path]]:
        """List them."""
        name, files = list_run(self._target, self._name)
        if files:
            self._name = name
        return name, files

    def close(self) -> None:
        """Do nothing: no folder stays open."""
