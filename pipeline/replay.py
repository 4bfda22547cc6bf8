"""A whole run in this process: for notebooks, tests, and as the measure of the processes."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from phasewatch.pipeline.batch import Failure
from phasewatch.pipeline.chain import Chain
from phasewatch.pipeline.documents import WHOLE, Event, RunStart, RunStop
from phasewatch.pipeline.ledger import Gaps, Ledger
from phasewatch.pipeline.plugin import Sink, Source
from phasewatch.pipeline.stage import Conform, Stage, isolate
from phasewatch.pipeline.stages.track import Track


def replay(
    source: Source, stages: Sequence[Stage], sink: Sink, *, run_id: str = "replay"
) -> RunStop:
    """Give what `source` holds to `stages` and what comes out to `sink`; return the end of the run.

    The items come out as they do from the processes, to the last bit. Failures do not end it,
    however many.
    """
    chain, track = Chain(stages), next((s for s in stages if isinstance(s, Track)), None)
    ledger, gaps, events, received = Ledger(), Gaps(), list[Event](), 0
    try:
        run: RunStart = source.start().evolve(run_id=run_id)
        sink.start(chain.start(run))
        conform = Conform(run)
        for item in source:
            if item is None:
                continue
            bad: list[Failure]
            if isinstance(item, Failure):
                gaps.add(np.array([item.id]))
                good, bad = None, [replace(item, seq=received)]
                received += 1
            else:
                gaps.add(item.ids)
                first, received = received, received + len(item)
                numbered = replace(item, seq=np.arange(first, received))
                good, bad = isolate("source", conform, numbered)
            if good is not None:
                good, failures = chain.process_isolated(good)
                bad = bad + failures
            if bad:
                ledger.fail(bad)
                sink.failures(bad)
            if good is not None:
                ledger.classify(len(good))
                sink.batch(good)
                for event in track.take_events() if track else ():
                    events.append(event)
                    sink.event(event)
        stop = RunStop(
            run_id=run_id,
            reason=WHOLE,
            loss=ledger.loss(
                received=received, missed=gaps.missed, expected=run.expected, whole=True
            ),
            confidence=track.confidence if track else None,
            zones=track.zones if track else (),
            events=tuple(events),
            failures=ledger.failures,
        )
        sink.stop(stop)
        return stop
    finally:
        sink.close()
        source.close()
