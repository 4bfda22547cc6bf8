"""``phasewatch bench inference``: the networks on one core against eager torch.

Each architecture is trained for a moment on made-up patterns of 4023 points that pass from one
phase to another. Four contenders take the same batch in turn, in one process on one thread:

- eager: the network as torch runs it, all patterns of the batch at once, and the softmax;
- network: the compiled forward pass alone, where the network has one;
- predictor: all that the classify stage asks for: gaps, network, softmax, novelty;
- stage: the classify stage on a batch of the chain.

Times are medians. The ratio is eager to predictor, although eager knows neither gaps nor novelty.
"""

import json
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from phasewatch.bench import machine
from phasewatch.bench.measure import Samples, cores, interleaved, median_ms
from phasewatch.models.forward import compiled
from phasewatch.models.labels import Labels
from phasewatch.models.predict import Predictor, eager
from phasewatch.models.registry import names
from phasewatch.models.series import Series
from phasewatch.models.store import save
from phasewatch.models.threads import one_thread
from phasewatch.models.training import Recipe, train
from phasewatch.pipeline.batch import Batch
from phasewatch.pipeline.stages.classify import Classify

POINTS = 4023
BATCHES = (1, 8, 64)
ROUNDS, BUDGET_S = 201, 4.0


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table; times are medians in us per pattern.

    `network_us` is None where torch runs the network. `deviation` is the largest difference of a
    probability to eager torch's over the batch, `same_labels` whether all labels are equal.
    """

    model: str
    batch: int
    eager_us: float
    network_us: float | None
    predictor_us: float
    stage_us: float
    deviation: float
    same_labels: bool
    samples_ns: Samples

    @property
    def ratio(self) -> float:
        """How many times faster the predictor is than eager torch."""
        return self.eager_us / self.predictor_us

    @property
    def rate_hz(self) -> float:
        """Patterns a second through the stage."""
        return 1e6 / self.stage_us


def report(json_file: Path | None) -> None:
    """Measure, print a table, and write all to `json_file` if there is one."""
    console, found = Console(), []
    with console.status("") as status:
        for row in rows(lambda text: status.update(text)):
            found.append(row)
    columns = "model|batch|eager|network|predictor|stage|ratio|patterns/s|deviation|labels"
    table = Table(*columns.split("|"), title="us per pattern")
    for row in found:
        network = "torch" if row.network_us is None else f"{row.network_us:.1f}"
        times = (f"{row.eager_us:.1f}", network, f"{row.predictor_us:.1f}", f"{row.stage_us:.1f}")
        table.add_row(
            *(row.model, str(row.batch), *times, f"{row.ratio:.1f}", f"{row.rate_hz:.0f}"),
            *(f"{row.deviation:.0e}", "same" if row.same_labels else "DIFFER"),
        )
    console.print(table)
    if json_file is not None:
        content = {
            "scenario": "inference",
            "machine": machine.describe(),
            "rows": [{**asdict(r), "ratio": r.ratio, "rate_hz": r.rate_hz} for r in found],
        }
        json_file.write_text(json.dumps(content) + "\n", encoding="utf-8")


def rows(tell: Callable[[str], None], *, seed: int = 0) -> Iterator[Row]:
    """Measure each network at each batch size; `tell` is told what comes next."""
    series, labels = _series(seed)
    with cores(1), one_thread(), tempfile.TemporaryDirectory() as folder:
        for model in names():
            tell(f"{model}: a few epochs of training")
            net, card, range_ = train(
                series, labels, model=model, seed=seed, recipe=Recipe(epochs=3)
            )
            # Eager torch knows of no temperature, and is compared.
            save(folder, net, card.model_copy(update={"temperature": 1.0}), range_)
            for batch in BATCHES:
                tell(f"{model}, batches of {batch}")
                yield _row(model, Path(folder), net, series.intensity, batch)


def _as_new(stage: Classify, batch: Batch) -> Batch:
    stage.forget()  # or the same batch would come twice to a model that looks back
    return stage.process(batch)


def _row(model: str, folder: Path, net: Any, patterns: NDArray[np.float32], n: int) -> Row:
    rows = np.linspace(0, len(patterns) - 1, n).round().astype(int)
    x = np.ascontiguousarray(patterns[rows])
    predictor, stage = Predictor.load(folder, device="cpu"), Classify(folder, device="cpu")
    forward = compiled(net, x.shape[1])
    numbers = np.arange(n, dtype=np.int64)
    batch = Batch(seq=numbers, ids=numbers, arrays={"intensity": x})
    contenders: dict[str, Callable[[], object]] = {
        "eager": partial(eager, net, x),
        **({} if forward is None else {"network": partial(forward, x)}),
        "predictor": partial(predictor, x),
        "stage": partial(_as_new, stage, batch),
    }
    samples = interleaved(contenders, rounds=ROUNDS, budget_s=BUDGET_S)
    us = {name: 1e3 * median_ms(s) / n for name, s in samples.items()}
    theirs, ours = eager(net, x), predictor(x).probability
    return Row(
        model=model,
        batch=n,
        eager_us=us["eager"],
        network_us=us.get("network"),
        predictor_us=us["predictor"],
        stage_us=us["stage"],
        deviation=float(np.abs(ours - theirs).max()),
        same_labels=bool((ours.argmax(axis=1) == theirs.argmax(axis=1)).all()),
        samples_ns=samples,
    )


def _series(seed: int) -> tuple[Series, Labels]:
    """Return patterns that pass from one phase to another, and labels of a few."""
    rng, n = np.random.default_rng(seed), max(BATCHES)
    axis = np.linspace(5, 25, POINTS)
    first, second = (
        sum(np.exp(-(((axis - c) / 0.06) ** 2)) for c in rng.uniform(6, 24, 5)) for _ in range(2)
    )
    share = (1 / (1 + np.exp(-np.linspace(-8, 8, n))))[:, None]
    intensity = (1 - share) * first + share * second + rng.normal(0, 0.03, (n, POINTS))
    series = Series(
        axis=axis,
        unit="2th_deg",
        intensity=intensity.astype(np.float32),
        ids=np.arange(n),
        index=np.arange(n),
        digest="0" * 64,
        source="made up",
        baseline={"method": "none"},
        normalise="none",
    )
    index = np.linspace(0, n - 1, 8).round().astype(np.int64)
    return series, Labels(index, (index >= n / 2).astype(np.int64), ("before", "after"))
