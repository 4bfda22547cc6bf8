"""The part files of a LAMBDA detector, as messages of ASAP::O announce them by name."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

import structlog

from phasewatch.pipeline.errors import PipelineError
from phasewatch.plugins.sources.asapo_feed import AsapoFeed
from phasewatch.plugins.sources.asapo_messages import Finished, Missing, Part
from phasewatch.plugins.sources.lambda_files import Key, run_of

_log = structlog.get_logger(__name__)


class Announced:
    """The files that `feed` names, below the folder `root`; of the run that came first.

    Attributes
    ----------
    over
        The stream is finished.
    refused
        Messages not taken, by why.
    """

    def __init__(self, feed: AsapoFeed, root: Path) -> None:
        self.over = False
        self.refused: Counter[str] = Counter()
        self._feed, self._root = feed, root
        self._open = False
        self._name = ""
        self._files: dict[Key, Path] = {}

    def __call__(self) -> tuple[str, Mapping[Key, Path]]:
        """Take all messages that there are by now."""
        if not self._open:
            self._feed.open()
            self._open = True
        while not self.over and (message := self._feed.receive(0)) is not None:
            if isinstance(message, Finished):
                if not self._files:
                    self._feed.receive(0)  # says that nothing came
                self.over = True
            elif isinstance(message, Missing):
                self._refuse("missing", message.error)
            else:
                for part in message.parts:
                    self._take(message.id, part)
        return self._name, self._files

    def close(self) -> None:
        """Let go of the feed and say what was refused."""
        if self._open:
            self._open = False
            self._feed.close()
            if self.refused:
                _log.warning("messages refused", address=self._feed.address, **self.refused)

    def _take(self, number: int, part: Part) -> None:
        name = part.meta.get("name")
        if not isinstance(name, str) or not 0 < len(name) <= 4096 or not name.isprintable():
            return self._refuse("no name", f"message {number}: no name of a file")
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts:
            return self._refuse("not below the folder", f"message {number}: {name!r:.200}")
        try:
            run, key = run_of(self._root / path)
        except PipelineError as error:
            return self._refuse("not a LAMBDA file", f"message {number}: {error}")
        self._name = self._name or run
        if run != self._name:
            return self._refuse("another run", f"message {number}: {name!r:.200}")
        self._files[key] = self._root / path
        return None

    def _refuse(self, kind: str, text: str) -> None:
        self.refused[kind] += 1
        if self.refused[kind] == 1:
            _log.warning("message refused", address=self._feed.address, kind=kind, text=text)
