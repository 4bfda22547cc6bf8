"""Those who are told once a second how a run is: metrics, heartbeat; they cannot hold it up."""

from types import TracebackType
from typing import Self

import structlog

from phasewatch.pipeline.config import Config
from phasewatch.pipeline.health import Status
from phasewatch.pipeline.plugin import Observer, open_observer

EVERY_NS = 1_000_000_000
log = structlog.get_logger(__name__)


class Observers:
    """Observers by name; a context manager that closes them.

    One that fails is told in the log and closed; the run goes on.
    """

    def __init__(self) -> None:
        self._observers: dict[str, Observer] = {}
        self._next_ns = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def add(self, name: str, observer: Observer) -> None:
        """Tell `observer` too."""
        self._observers[name] = observer

    def due(self, now_ns: int) -> bool:
        """Tell whether a second has gone by since this was true; seconds gone are not made up."""
        if not self._observers or now_ns < self._next_ns:
            return False
        self._next_ns = now_ns - now_ns % EVERY_NS + EVERY_NS
        return True

    def update(self, status: Status) -> None:
        """Tell all of them."""
        for name, observer in list(self._observers.items()):
            try:
                observer.update(status)
            except Exception as error:  # whatever it is: the run is worth more than who watches it
                log.error("observer failed and is closed", observer=name, error=repr(error))
                self._close(name)

    def close(self) -> None:
        """Close all of them."""
        for name in list(self._observers):
            self._close(name)

    def _close(self, name: str) -> None:
        try:
            self._observers.pop(name).close()
        except Exception as error:
            log.error("observer cannot be closed", observer=name, error=repr(error))


def open_observers(config: Config) -> Observers:
    """Open the observers that `config` has tables for.

    Raises
    ------
    PipelineError
        A key of a table is wrong, or its address cannot be had.
    """
    observers = Observers()
    try:
        for name, options in config.observers.items():
            observers.add(name, open_observer(name, **options))
    except BaseException:
        observers.close()
        raise
    return observers
