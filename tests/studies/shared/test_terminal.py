"""Study tables in a terminal of 80 columns: nothing is wider, and no number is cut."""

import io
import re

import numpy as np
import pandas as pd
import pytest

from jaxtrace.cli.output import PlainConsole
from jaxtrace.studies._shared.page import terminal_table
from jaxtrace.studies._shared.result import EXAMPLES, Table
from jaxtrace.studies.registry import STUDIES
from tests.commands import run_command

# Every study on the demo, as small as it runs.
COMMANDS = {
    "dynamics": "--model demo --task lab --limit 6 --max-new-tokens 8 --resamples 20",
    "expansion": "--model demo --task lab --limit 4",
    "interventions": "--model demo --task lab-choices --options choice --limit 12 --count 1 --draws 2",
    "lens": "--model demo --task lab --sample 60 --max-new-tokens 8 --by kind --folds 2 --neighbours 3",
    "patterns": "--model demo --task factual-creative --limit 12 --max-new-tokens 6 --by condition",
    "samplers": "--model demo --limit 4 --max-new-tokens 4 --sampler greedy --sampler entropix --draws 0",
}
QUICK = ("dynamics", "expansion")


def text_of(table, width=80, name="t"):
    out = io.StringIO()
    PlainConsole(file=out, width=width).print(terminal_table(name, table, width))
    return out.getvalue()


def numbers_of(frame):
    """Return the numbers that the terminal has to show of a frame without constant columns."""
    return {f"{x:.3g}" for name in frame.select_dtypes(float) for x in frame[name] if np.isfinite(x) and x % 1}


@pytest.mark.parametrize(
    ("rows", "columns", "width"), [(1, 40, 80), (2, 5, 80), (7, 20, 50), (99, 12, 80), (99, 1, 50)]
)
def test_a_wide_table_is_turned_or_split_and_no_number_is_cut(rows, columns, width, rng):
    names = [f"some_long_quantity_name_{i}" for i in range(columns)]
    values = pd.DataFrame(rng.normal(0, 10.0 ** rng.integers(-5, 6, (rows, columns))), columns=names)
    bounds = {f"{name}{end}": values[name] * by for name in names for end, by in (("_low", 0.5), ("_high", 2.0))}
    ids = [f"/a/long/path/to/a/model-of-many-words-{i}" for i in range(rows)]
    frame = pd.DataFrame({"model": ids, "layer": range(rows), **values, **bounds})
    text = text_of(Table(frame, "t"), width)
    assert max(map(len, text.splitlines())) <= width and "…" not in text
    assert numbers_of(frame.head(40)) <= {*re.findall(r"[-+.e\d]+", text)}
    assert ("and 59 more rows in tables/t.csv" in text) == (rows == 99)


def test_a_column_of_one_value_is_told_once():
    text = text_of(Table(pd.DataFrame({"model": "demo", "layer": [1, 2], "x": [0.25, 0.5], "n": 24}), "t"))
    assert [line.split() for line in text.splitlines() if line] == [
        ["t:", "model", "demo,", "n", "24"],
        ["layer", "x"],
        ["1", "0.25"],
        ["2", "0.5"],
    ]


def test_intervals_are_shown_beside_their_values():
    frame = pd.DataFrame({"x": [0.51234, 1.0], "x_low": [0.25, np.nan], "n": [4, 1], "x_high": [1234.0, np.nan]})
    lines = [line.split(maxsplit=3) for line in text_of(Table(frame, "t")).splitlines()[2:]]
    assert lines == [["x", "n"], ["0.512", "[0.25,", "1234]", "4"], ["1", "[–,", "–]", "1"]]


def test_texts_of_models_break_no_table():
    frame = pd.DataFrame(
        {"prompt": ["\x1b[31m[red]\n" + "x" * 500, "b", "c"], "x_y": [0.5, np.nan, np.inf], "n": [1, 2, 3]}
    )
    text = text_of(Table(frame, "t", EXAMPLES))
    assert "\x1b" not in text and "[red]" in text and "–" in text and max(map(len, text.splitlines())) <= 80
    assert text_of(Table(frame.head(0), "t")).strip().startswith("t")


def test_every_study_has_a_command_here():
    assert COMMANDS.keys() == {study.name for study in STUDIES}


@pytest.mark.parametrize(
    "study", [pytest.param(name, marks=[pytest.mark.nightly] * (name not in QUICK)) for name in COMMANDS]
)
def test_tables_of_a_study_fit_80_columns(study, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr("jaxtrace.studies._shared.page.png", lambda figure: b"")
    done = run_command("study", study, *COMMANDS[study].split(), "--out", tmp_path)
    assert done.status == 0, done.err
    names = [file.stem for file in (tmp_path / "tables").glob("*.csv")]
    for name in names:
        frame = pd.read_csv(tmp_path / "tables" / f"{name}.csv")
        text = text_of(Table(frame, ""), name=name)
        assert max(map(len, text.splitlines())) <= 80 and not re.search(r"\d…", text), name
        assert numbers_of(frame.head(40)) <= {*re.findall(r"[-+.e\d]+", text)}, name
        assert re.search(rf"^{name}\b", done.out, re.MULTILINE)
