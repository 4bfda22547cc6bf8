import csv
import json

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from phasewatch.models import ModelError, commands
from phasewatch.models.store import load, read_card

app = typer.Typer()
app.command("train")(commands.train)
app.command("evaluate")(commands.evaluate)


def run(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


@pytest.fixture
def files(synthetic, tmp_path):
    series, truth = synthetic.series()
    np.savez(
        tmp_path / "run.npz",
        x=series.axis,
        intensity=series.intensity,
        x_name="2theta (deg)",
        order=np.arange(40) * 5.0,
        order_name="p (GPa)",
    )
    with open(tmp_path / "labels.csv", "w", newline="") as f:
        csv.writer(f).writerows(
            [("index", "label"), *((i, ("bcc", "hcp")[truth[i]]) for i in (1, 8, 15, 24, 31, 38))]
        )
    return tmp_path / "run.npz", tmp_path / "labels.csv", tmp_path / "model"


def train(files, *more):
    series, labels, out = files
    return run(
        "train", series, "--labels", labels, "--model", "fcnn", "--out", out, "--epochs", 10, *more
    )


def test_train_and_evaluate(files, tmp_path):
    series, labels, out = files
    done = train(files)
    assert done.exit_code == 0, done.output
    assert "bcc -> hcp" in done.output
    assert "p (GPa) 95 and 100" in " ".join(done.output.split())
    assert {p.name for p in out.iterdir()} == {"model.safetensors", "card.json", "report.png"}
    card = read_card(out)
    assert card.classes == ("bcc", "hcp")
    assert card.metrics["run.npz (trained on)"]["accuracy"] == 1.0

    done = run("evaluate", out, series, "--labels", labels, "--out", tmp_path / "found")
    assert done.exit_code == 0, done.output
    assert "100.00 % of 6" in done.output
    figures = json.loads((tmp_path / "found" / "evaluation.json").read_text())
    assert figures["model"] == card.sha256
    assert figures["boundaries"] == [[19, 20]]
    assert (tmp_path / "found" / "report.png").stat().st_size > 10_000
    done = run("evaluate", out, series)
    assert done.exit_code == 0
    assert "accuracy" not in done.output


def test_train_again_replaces_its_own_folder_only(files):
    _, _, out = files
    assert train(files).exit_code == 0
    first = read_card(out).sha256
    assert train(files, "--seed", 1).exit_code == 0
    assert load(out)[1].sha256 != first
    (out / "notes.txt").write_text("mine")
    done = train(files)
    assert isinstance(done.exception, ModelError)
    assert "holds notes.txt; --out must be new" in str(done.exception)
    assert (out / "notes.txt").read_text() == "mine"


def test_out_is_a_file(files):
    _series, _labels, out = files
    out.write_text("")
    assert "is a file; --out is the folder" in str(train(files).exception)


def test_classes_in_order(files):
    assert train(files, "--classes", "hcp, bcc").exit_code == 0
    assert read_card(files[2]).classes == ("hcp", "bcc")
    done = train(files, "--classes", "bcc,fcc")
    assert "label 'hcp' is not one of bcc, fcc" in str(done.exception)
    done = train(files, "--classes", "bcc,hcp,fcc")
    assert "class 'fcc' has no pattern" in str(done.exception)


def test_recipe_and_context(files):
    assert train(files, "--recipe", "thesis", "--model", "lstm", "--context", 2).exit_code == 0
    card = read_card(files[2])
    assert (card.training.recipe["name"], card.training.epochs, card.context) == ("thesis", 10, 2)
    assert "is not known; there are: phasewatch, th" in str(train(files, "--recipe", "x").exception)
    done = train(files, "--model", "cnn", "--context", 2)
    assert "model 'cnn' has no option 'context'" in str(done.exception)


def test_errors_name_the_file(files, tmp_path):
    series, labels, out = files
    labels.write_text("index,label\n0,a\n400,b\n")
    error = train(files).exception
    assert isinstance(error, ModelError)
    assert "labels.csv line 3: index 400: the series has 40 patterns" in str(error)
    assert isinstance(run("evaluate", tmp_path / "none", series).exception, ModelError)
    assert not out.exists()


@pytest.mark.parametrize(
    ("after", "before", "text"),
    [
        (-1, 40, "nowhere"),
        (-1, 3, "before pattern 3"),
        (39, 40, "not by pattern 39"),
        (3, 9, "between patterns 3 and 9"),
    ],
)
def test_how_a_boundary_reads(synthetic, after, before, text):
    series, _ = synthetic.series()
    assert commands._between(after, before, series) == text
