"""What the pictures of an explanation have in common: figures, thinned maps, colours.

A map of thousands of points shows a few hundred columns: neighbouring points are averaged, not
picked, so that no peak falls between them.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure
from numpy.typing import NDArray

from phasewatch.models.palette import colour_of

COLUMNS = 500  # of a map
SIGNED, UNSIGNED = "RdBu_r", "Reds"
TOP = 99.0  # percentile of the colour scale: peaks cover 2 to 5 % of a map


def figure(width: float, height: float, title: str) -> Figure:
    """Make a figure of `width` x `height` inches."""
    made = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(made)
    made.suptitle(title, fontsize=11)
    return made


def save(made: Figure, path: Path) -> None:
    """Write `made` as PNG."""
    made.savefig(path, dpi=110)


def thin(values: NDArray[Any], axis: NDArray[np.float64]) -> tuple[NDArray[Any], Any]:
    """Average `values` (n, n_points) over neighbours; return them and the columns' edges."""
    group = -(-values.shape[1] // COLUMNS)
    first = np.arange(0, values.shape[1], group)
    count = np.diff(np.append(first, values.shape[1]))
    middle = (axis[1:] + axis[:-1]) / 2
    ends = 1.5 * axis[[0, -1]] - 0.5 * axis[[1, -2]]
    edges = np.concatenate([ends[:1], middle, ends[1:]])
    return np.add.reduceat(values, first, axis=1) / count, edges[np.append(first, len(axis))]


def centres(edges: Any) -> Any:
    """Return the middles of columns."""
    return (edges[1:] + edges[:-1]) / 2


def scale(values: Iterable[NDArray[Any]], *, signed: bool) -> Normalize:
    """Return one colour scale for all `values`, symmetric about zero if they have signs."""
    top = max(float(np.nanpercentile(np.abs(v), TOP)) for v in values) or 1.0
    return Normalize(-top if signed else 0.0, top)


def over(
    axes: Axes,
    patterns: NDArray[Any],
    values: NDArray[Any],
    columns: Any,
    rows: NDArray[np.float64],
    norm: Normalize,
) -> ScalarMappable:
    """Draw `values` in colour over the grey map of `patterns`, both (n, columns)."""
    grey = np.sqrt(patterns - patterns.min())
    low, high = np.percentile(grey, (2, 99.8))
    grey = 1 - 0.6 * np.clip((grey - low) / ((high - low) or 1), 0, 1)
    paint = ScalarMappable(norm, SIGNED if norm.vmin else UNSIGNED)
    colour = paint.to_rgba(values)[..., :3]
    alpha = np.sqrt(np.clip(np.abs(values) / norm.vmax, 0, 1))[..., None]
    axes.pcolormesh(columns, rows, alpha * colour + (1 - alpha) * grey[..., None], rasterized=True)
    return paint


def row_edges(index: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the edges (n + 1,) of rows at the positions `index` (n,)."""
    step = float(np.median(np.diff(index))) if len(index) > 1 else 1.0
    middle = (index[1:] + index[:-1]) / 2
    return np.concatenate([[index[0] - step / 2], middle, [index[-1] + step / 2]])


def strip(
    axes: Axes, label: NDArray[np.int64], rows: NDArray[np.float64], names: Sequence[str]
) -> None:
    """Draw the labels as a strip of colours beside a map."""
    colours = ListedColormap([colour_of(name, k) for k, name in enumerate(names)])
    axes.pcolormesh([0, 1], rows, label[:, None], cmap=colours, vmin=-0.5, vmax=len(names) - 0.5)
    axes.set_xticks([])
    axes.set_title("label", fontsize=9)


def class_patterns(patterns: NDArray[Any], label: NDArray[np.int64]) -> dict[int, NDArray[Any]]:
    """Return the mean pattern of each class that there is."""
    return {int(k): patterns[label == k].mean(axis=0) for k in np.unique(label)}


def behind(axes: Axes, axis: NDArray[np.float64], pattern: NDArray[Any]) -> None:
    """Draw a pattern in grey behind a curve, on a scale of its own."""
    back = axes.twinx()
    back.fill_between(axis, pattern, pattern.min(), color="0.85", lw=0)
    back.set_yticks([])
    back.margins(x=0)
    back.set_ylim(top=pattern.min() + 1.05 * float(np.ptp(pattern)))
    axes.set_zorder(back.get_zorder() + 1)
    axes.patch.set_visible(False)
