"""The main job from beginning to end on a simulated experiment: ``make demo``.

Train on a few labelled patterns of one run, follow the transition in another run under other
conditions: other noise, texture, geometry, ramp and onset. What is typed at a beamline is shown
before it is run.
"""

import csv
import shlex
import shutil
import sys
from pathlib import Path

from rich.console import Console

from phasewatch.bench.picture import draw
from phasewatch.pipeline.cli import main as phasewatch
from phasewatch.plugins.result import read_result

TRAINING = ("--seed", "1", "--frames", "120", "--labels", "12")
MODEL = "cnn"
MADE = ("training", "stream", "model", "RESULT.nxs", "SUMMARY.json", "RESULT.png")
STREAM = ("--seed", "3", "--frames", "300")


def main(folder: Path) -> int:
    """Run the demonstration in `folder`; return the exit code."""
    console = Console(highlight=False, soft_wrap=True)
    folder.mkdir(parents=True, exist_ok=True)
    for old in MADE:  # of an earlier demonstration; nothing else is touched
        shutil.rmtree(folder / old, ignore_errors=True)
        (folder / old).unlink(missing_ok=True)
    training, stream, model = folder / "training", folder / "stream", folder / "model"
    result, summary = folder / "RESULT.nxs", folder / "SUMMARY.json"
    steps = (
        ("an experiment to learn from", "simulate", "fe-ramp", "--out", training, *TRAINING),
        ("its clean patterns", "run", training / "run.toml"),
        (
            "a model from a few labelled patterns",
            *("train", training / "result.nxs", "--labels", training / "labels.csv"),
            *("--model", MODEL, "--out", model),
        ),
        ("another run, other conditions", "simulate", "fe-ramp", "--out", stream, *STREAM),
        (
            "its frames through the chain",
            *("run", stream / "watch.toml", "--out", result, "--summary", summary),
        ),
    )
    for title, *words in steps:
        if words[0] == "run" and words[1] == stream / "watch.toml":
            _add_model(stream / "run.toml", stream / "watch.toml", model)
        arguments = [str(word) for word in words]
        console.print(f"\n[bold]{title}[/]\n$ phasewatch {shlex.join(arguments)}")
        code = phasewatch(arguments)
        if code != 0:
            return code
    draw(result, folder / "RESULT.png", truth_csv=stream / "truth.csv")
    console.print("\n[bold]what it found[/]")
    _compare(console, result, stream / "truth.csv")
    for path in (result, summary, folder / "RESULT.png"):
        console.print(str(path))
    return 0


def _add_model(source: Path, target: Path, model: Path) -> None:
    text = source.read_text(encoding="utf-8")
    classifier = f'\n[classifier]\nmodel = "{model.absolute()}"\n'
    target.write_text(text + classifier, encoding="utf-8")


def _compare(console: Console, result_path: Path, truth_path: Path) -> None:
    """Say how far the tracked phases are from the truth, frame by frame and at each boundary."""
    result = read_result(result_path)
    with truth_path.open(newline="", encoding="utf-8") as file:
        truth = [row["label"] for row in csv.DictReader(file)]
    names = result.start.classes
    tracked = [names[p] if p >= 0 else "unknown" for p in result.arrays["phase"].tolist()]
    true = [truth[seq] for seq in result.seq.tolist()]
    right = sum(a == b for a, b in zip(tracked, true, strict=True))
    console.print(f"tracked phase is the true class in {right} of {len(true)} frames")
    for name in names[1:]:
        events = [e for e in result.events if e.phase >= 0 and names[e.phase] == name]
        if events and name in truth:
            console.print(
                f"{name}: begins at frame {truth.index(name)}, tracked from frame {events[0].seq}"
            )


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
