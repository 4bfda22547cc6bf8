"""Ambiguity zones and classification confidence, one label at a time.

Thesis eq. 3.1, as `phasewatch.models.confidence` computes it for a whole series. Each boundary k
between class k and k + 1 needs two numbers: the end of the longest initial run with y <= k and the
beginning of the present run with y > k. Positions count the labels seen; the sequence numbers they
stand for are kept beside them, since items that failed or were dropped have no label.
"""

from dataclasses import dataclass

from phasewatch.pipeline.documents import Zone


@dataclass(frozen=True, slots=True)
class Boundary:
    """One boundary: positions, and the seq of each.

    `after`: last of the initial run with y <= k (-1: none). `before`: first of the run with y > k
    that the series ends with (None: it does not end with one).
    """

    after: int = -1
    after_seq: int = -1
    unbroken: bool = True
    before: int | None = None
    before_seq: int = -1


@dataclass(frozen=True, slots=True)
class Ambiguity:
    """The state of all boundaries after `n` labels."""

    boundaries: tuple[Boundary, ...]
    n: int = 0
    last_seq: int = -1
    seen: frozenset[int] = frozenset()

    @classmethod
    def of(cls, n_classes: int) -> "Ambiguity":
        """Return the state before the first label."""
        return cls(boundaries=(Boundary(),) * (n_classes - 1))

    def add(self, label: int, seq: int) -> "Ambiguity":
        """Return the state with one more `label`, that of item `seq`."""
        return Ambiguity(
            boundaries=tuple(
                _add(boundary, label > k, self.n, seq) for k, boundary in enumerate(self.boundaries)
            ),
            n=self.n + 1,
            last_seq=seq,
            seen=self.seen | {label},
        )

    def zones(self) -> tuple[Zone, ...]:
        """Return the zone of each boundary, in sequence numbers."""
        return tuple(
            Zone(
                boundary=k,
                after=b.after_seq,
                before=self.last_seq + 1 if b.before is None else b.before_seq,
                n=(self.n if b.before is None else b.before) - b.after - 1,
                passed=b.after >= 0 and b.before is not None,
            )
            for k, b in enumerate(self.boundaries)
        )

    def confidence(self) -> float:
        """Return 1 - N_f / N_t; 0 when only one class was seen."""
        if len(self.seen) < 2:
            return 0.0
        covered, reached = 0, -1
        for first, last in sorted(
            (b.after + 1, self.n if b.before is None else b.before) for b in self.boundaries
        ):
            covered += max(0, last - max(first, reached))
            reached = max(reached, last)
        return 1.0 - covered / self.n


def _add(boundary: Boundary, above: bool, position: int, seq: int) -> Boundary:
    b = boundary
    if above:
        before, before_seq = (position, seq) if b.before is None else (b.before, b.before_seq)
        return Boundary(b.after, b.after_seq, False, before, before_seq)
    if b.unbroken:
        return Boundary(position, seq)
    return Boundary(b.after, b.after_seq, False)
