"""What no frame changes in the sums of an integration, from pyFAI's list of entries.

An entry is a pixel, a bin, and the share of the pixel in the bin.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from phasewatch.calibration.sums import GROUP, Plan

Array = NDArray[Any]
Float64 = NDArray[np.float64]
Index = NDArray[np.int64]


class Entries(NamedTuple):
    """Entries in the order of the pixels; shares None where all are 1, one entry a pixel."""

    pixels: Index
    bins: Index
    shares: NDArray[np.float32] | None


class Sums(NamedTuple):
    """A plan and its shares, which the kernels take one by one."""

    plan: Plan
    shares: NDArray[np.float32] | None

    def arrays(self) -> dict[str, Array]:
        """Return it as arrays to be kept, see `from_arrays`."""
        shares = {} if self.shares is None else {"shares": self.shares}
        plan = {name: np.asarray(value) for name, value in self.plan._asdict().items()}
        return {**plan, **shares}

    @classmethod
    def from_arrays(cls, arrays: dict[str, Array], n_pixels: int, n_bins: int) -> "Sums":
        """Return the sums that were kept; raise KeyError or ValueError if these are none.

        The kernels trust a plan with every index, so it is checked whole.
        """
        values = {name: arrays[name] for name in Plan._fields}
        bins, entries, where = values["bins"], values["entries"], values["where"]
        shares = arrays.get("shares")
        groups, n_entries = -(-n_pixels // GROUP), n_pixels
        if shares is not None:
            n_entries = GROUP * int(entries.sum(dtype=np.int64))
        right = (
            {x.dtype for x in (values["norm"], values["dark"], values["weights"])}
            == {np.dtype(np.float64)}
            and values["norm"].shape == values["dark"].shape == where.shape == (n_pixels,)
            and values["weights"].shape == (2, n_bins)
            and values["n_entries"].dtype == np.int64
            and values["n_entries"].shape == (n_bins,)
            and bins.dtype == np.dtype(np.uint16 if n_bins < 1 << 16 else np.uint32)
            and bins.shape == (n_entries,)
            and int(bins.max(initial=0)) <= n_bins
            and (values["none"].shape, values["none"].dtype) == ((), where.dtype)
            and entries.dtype.kind == where.dtype.kind == "u"
            and entries.shape == ((0,) if shares is None else (groups,))
            and (shares is None or shares.dtype == np.float32)
            and (shares is None or shares.shape == (n_entries,))
        )
        if not right:
            raise ValueError("it is no plan for this detector and axis")
        if shares is None:
            values["bins"] = values["where"] = bins
        values["none"] = values["none"][()]
        return cls(_plan(*values.values()), None if shares is None else frozen(shares))


class Prepared(NamedTuple):
    """All that an integration needs: `sums`, the `axes`, and which bins have pixels (`valid`)."""

    axes: tuple[Float64, ...]
    valid: NDArray[np.bool_]
    sums: Sums

    def arrays(self) -> dict[str, Array]:
        """Return it as arrays to be kept, see `from_arrays`."""
        axes = {f"axis_{i}": axis for i, axis in enumerate(self.axes)}
        return {**axes, "valid": self.valid, **self.sums.arrays()}

    @classmethod
    def from_arrays(
        cls, arrays: dict[str, Array], n_pixels: int, sizes: tuple[int, ...]
    ) -> "Prepared":
        """Return what was kept for axes of `sizes`; raise KeyError or ValueError if it is not."""
        axes = tuple(arrays[f"axis_{i}"] for i in range(len(sizes)))
        valid, n_bins = arrays["valid"], int(np.prod(sizes))
        described = [(x.shape, x.dtype) for x in (*axes, valid)]
        expected = [((size,), np.dtype(np.float64)) for size in sizes]
        if described != [*expected, (sizes[::-1], np.dtype(np.bool_))]:
            raise ValueError("its axes are of another size")
        return cls(
            tuple(frozen(axis) for axis in axes),
            frozen(valid),
            Sums.from_arrays(arrays, n_pixels, n_bins),
        )


def make_sums(entries: Entries, norm: Float64, dark: Float64, n_bins: int) -> Sums:
    """Return the sums of `entries` over pixels with `norm` and `dark` (n_pixels,)."""
    pixels, bins, shares = entries
    n_pixels = norm.size
    # Half the bytes to read where 16 bits hold the bin: the loop is memory bound.
    narrow = np.dtype(np.uint16 if n_bins < 1 << 16 else np.uint32)
    if shares is None:
        where = np.full(n_pixels, n_bins, narrow)
        where[pixels] = bins
        weights = [np.bincount(bins, x[pixels], minlength=n_bins) for x in (norm, dark)]
        count = np.bincount(bins, minlength=n_bins)
        each = np.ones(0, np.uint8)
        return Sums(
            _plan(where, each, where, narrow.type(n_bins), norm, dark, weights, count), None
        )
    some = shares != 0  # a few of pyFAI's are below, by rounding
    pixels, bins, shares = pixels[some], bins[some], shares[some]
    wide = shares.astype(np.float64)
    weights = [np.bincount(bins, wide * x[pixels], minlength=n_bins) for x in (norm, dark)]
    count = np.bincount(bins, minlength=n_bins)
    where = np.bincount(pixels, minlength=n_pixels)
    each = np.zeros(-(-n_pixels // GROUP) * GROUP, np.int64)
    each[:n_pixels] = where
    each = np.repeat(each.reshape(-1, GROUP).max(axis=1), GROUP)
    starts = np.cumsum(each) - each
    rank = np.arange(len(pixels)) - (np.cumsum(where) - where)[pixels]
    # What has no share goes to the bins after the pixel's first, so that none waits for another;
    # that of a masked pixel, which may hold NaN, to the one after the last, which is not read.
    first = np.full(len(each), n_bins)
    first[pixels[rank == 0]] = bins[rank == 0]
    all_bins = np.repeat(first - starts, each)
    all_bins += np.arange(len(all_bins))
    np.minimum(all_bins, n_bins, out=all_bins)
    all_shares = np.zeros(len(all_bins), np.float32)
    at = starts[pixels] + rank
    all_bins[at], all_shares[at] = bins, shares
    kind = np.min_scalar_type(int(each.max(initial=0)))
    entries_of_groups, narrow_bins = each[::GROUP].astype(kind), all_bins.astype(narrow)
    fixed = (norm, dark, weights, count)
    plan = _plan(narrow_bins, entries_of_groups, where.astype(kind), kind.type(0), *fixed)
    return Sums(plan, frozen(all_shares))


def frozen(array: Array) -> Array:
    """Return a read-only view: one compilation then serves frames that are so and that are not."""
    view = array.view()
    view.setflags(write=False)
    return view


def _plan(*fields: Any) -> Plan:
    values: list[Any] = [x if np.isscalar(x) else frozen(np.ascontiguousarray(x)) for x in fields]
    return Plan(*values)
