"""The report as one HTML page with its pictures in it; nothing is fetched from anywhere."""

from collections.abc import Mapping, Sequence
from html import escape
from io import StringIO
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from phasewatch.bench.load.latency import Times, exceedance, latencies, throughput
from phasewatch.bench.panels import INK
from phasewatch.models.palette import COLOURS

CHAIN, NULL = COLOURS[:2]
MEMORY = ("first", "last", "max", "own_first", "own_last")
STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; color: #222; max-width: 60rem; margin: 2rem auto;
       padding: 0 1rem }
h1 { font-size: 1.4rem; margin-bottom: .3rem } h2 { font-size: 1.05rem; margin: 1.6rem 0 .4rem }
.verdict { border-left: .5rem solid; padding: .5rem .9rem; margin: .8rem 0; background: #f6f6f6 }
.VALID { border-color: #009e73 } .INVALID { border-color: #d55e00 }
.plots { display: flex; flex-wrap: wrap; gap: 1rem } .plots svg { width: 29rem; height: auto }
table { border-collapse: collapse } td, th { padding: .15rem .8rem .15rem 0; text-align: right }
td:first-child, th:first-child { text-align: left } th { border-bottom: 1px solid #bbb }
small, footer { color: #666; font-size: .85rem } @media print { body { margin: 0 } }
"""


def page(document: Mapping[str, Any], times: Times, null: Times) -> str:
    """Return the page for a report and the raw times behind it."""
    title = f"phasewatch bench {document['scenario']}"
    latency = document["latency_ms"]
    columns = ("p50", "p90", "p99", "p999", "max")
    rows = [("from due to delivered", latency)] if latency else []
    rows += list(latency.get("per_stage", {}).items())
    rows.append(("harness alone", document["null"]["latency_ms"]))
    steps = [(name, *(f"{row[c]:.3f}" for c in columns)) for name, row in rows if row]
    memory = [
        (role, *(f"{m[k]:.1f}" for k in MEMORY), f"{m['own_growth']:+.1%}")
        for role, m in document["memory_mib"].items()
    ]
    parts = [
        f"<h1>{escape(title)}</h1>",
        _verdict(document),
        f"<p>{escape(_facts(document))}</p>",
        *_comparison(document),
        *_search(document),
        f'<div class="plots">{"".join(plots(times, null, document))}</div>' if times else "",
        "<h2>Latency, ms</h2>",
        table(("stage", *columns), steps),
        "<h2>Where every item ended</h2>",
        table(("", "items"), _losses(document["frames"])),
        "<h2>Memory, MiB</h2>",
        table(("process", "first", "last", "max", "own first", "own last", "growth"), memory),
        "<small>first: after a quarter of the run; own: without shared and mapped pages</small>",
        f"<footer><p>{escape(_made(document))}</p></footer>",
    ]
    head = f'<meta charset="utf-8"><title>{escape(title)}</title><style>{STYLE}</style>'
    body = "\n".join(part for part in parts if part)
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>\n{body}\n</body></html>\n'


def plots(times: Times, null: Times, document: Mapping[str, Any]) -> list[str]:
    """Return the pictures as SVG elements."""
    distribution, ax = _figure()
    for of, name, colour in ((null, "harness alone", NULL), (times, "chain", CHAIN)):
        if of:
            ax.plot(*exceedance(latencies(of)), color=colour, label=name, lw=1.8)
    ax.set(xscale="log", yscale="log", xlabel="latency from due (ms)", ylabel="share that is later")
    ax.set_ylim(0.7 / len(times["seq"]), 1.3)
    for share in (0.01, 0.001):
        ax.axhline(share, color="0.8", lw=0.8, zorder=0)
        said = f"p{100 * (1 - share):g}"
        ax.text(1.01, share, said, transform=ax.get_yaxis_transform(), va="center", color="0.45")
    ax.legend(frameon=False, loc="lower left")
    rates, ax = _figure()
    edges, per_s = throughput(times)
    ax.stairs(per_s, edges, color=CHAIN, lw=1.2, label="delivered")
    if document["offered_hz"]:
        ax.axhline(document["offered_hz"], color=INK, lw=0.9, ls="--", label="offered")
        ax.legend(frameon=False, loc="lower right")
    ax.set(xlabel="time since the first item was due (s)", ylabel="items per second")
    ax.set_xlim(0, float(edges[-1]))
    ax.set_ylim(0, 1.15 * float(np.max(per_s)))
    memory, ax = _figure()
    for role, found in document["memory_mib"].items():
        ax.plot(found["own"], label=role, lw=1.4)
    ax.set(xlabel="time since the first item was due (s)", ylabel="own memory (MiB)")
    ax.set_ylim(0)
    ax.legend(frameon=False, loc="center right")
    return [_svg(distribution), _svg(rates), _svg(memory)]


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return an HTML table."""
    cells = ["<tr>" + "".join(f"<th>{escape(h)}</th>" for h in head) + "</tr>"]
    cells += ["<tr>" + "".join(f"<td>{escape(c)}</td>" for c in row) + "</tr>" for row in rows]
    return f"<table>{''.join(cells)}</table>"


def _verdict(document: Mapping[str, Any]) -> str:
    said = "".join(f"<br>warning: {escape(w)}" for w in document["warnings"])
    verdict = escape(document["verdict"])
    reason = escape(document["reason"])
    return f'<div class="verdict {verdict}"><b>{verdict}</b>: {reason}{said}</div>'


def _facts(document: Mapping[str, Any]) -> str:
    offered = document["offered_hz"]
    load = f"{document['n']} items in {document['duration_s']:.1f} s"
    if offered:
        load += f", {offered:g} per second offered, {document['arrivals']} intervals"
    text = f"{load}; {document['rate_hz']:.1f} per second delivered. {document['what']}."
    if (generator := document["generator"]) is not None:
        text += (
            f" Generator: {generator['late_share']:.2%} of the items later than "
            f"{generator['late_ms']:g} ms, the latest by {generator['worst_ms']:.2f} ms."
        )
    return text


def _comparison(document: Mapping[str, Any]) -> list[str]:
    """Return the ratios to the user's loop, where there are any."""
    if "ratio" not in document:
        return []
    rates, singles = document["throughput_hz"], document["single_p90_ms"]
    rows = [
        (of, f"{np.median(rates[of]):.1f}", f"{np.median(singles[of]):.3f}")
        for of in ("chain", "loop")
    ]
    ratio = document["ratio"]
    rows.append(("ratio", f"{ratio['throughput']:.1f}", f"{ratio['latency']:.2f}"))
    return [
        "<h2>Against the loop a user would write</h2>",
        table(("medians of rounds", "items per second", "one at a time, p90 ms"), rows),
        f"<small>loop: {escape(document['loop'])}; its patterns differ by "
        f"{document['loop_deviation']:.0e} at most. The rest of this page is the chain's middle "
        "round, all items at once.</small>",
    ]


def _search(document: Mapping[str, Any]) -> list[str]:
    """Return the runs of a search for the peak, where there was one."""
    if "probes" not in document:
        return []
    rows = [
        (f"{p['rate_hz']:.1f}", "" if p["p99_ms"] is None else f"{p['p99_ms']:.3f}", p["reason"])
        for p in document["probes"]
    ]
    peak = document["peak_hz"]
    said = f"{peak:.1f} per second" if peak else "none"
    return [
        f"<h2>Peak with a p99 below {document['limit_p99_ms']:g} ms: {said}</h2>",
        table(("items per second", "p99 ms", "verdict but for its length"), rows),
    ]


def _losses(frames: Mapping[str, Any]) -> list[tuple[str, str]]:
    names = ("expected", "received", "missed", "classified", "failed", "not_read")
    rows = [(name.replace("_", " "), str(frames[name])) for name in names if name in frames]
    return rows + [(f"dropped: {k}", str(n)) for k, n in frames.get("dropped", {}).items()]


def _made(document: Mapping[str, Any]) -> str:
    machine, versions = document["machine"], document["versions"]
    said = ", ".join(f"{name} {version}" for name, version in versions.items())
    return f"{machine['processor']}, {machine['cores']} cores, {machine['system']}; {said}"


def _figure() -> tuple[Figure, Axes]:
    figure = Figure(figsize=(5.6, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    ax = figure.add_subplot()
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(colors=INK, width=0.7)
    return figure, ax


def _svg(figure: Figure) -> str:
    text = StringIO()
    # Text stays text; ids are the same each time.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "phasewatch"}):
        figure.savefig(text, format="svg", metadata={"Date": None})
    svg = text.getvalue()
    return svg[svg.index("<svg") :]
