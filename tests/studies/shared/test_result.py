"""A result on disk: every row in its file, every text escaped, every picture in both themes."""

import numpy as np
import pandas as pd
import pytest

from jaxtrace.figures.html import png
from jaxtrace.figures.theme import DARK, LIGHT, new_figure
from jaxtrace.statistics.intervals import FEW_NOTE, bootstrap
from jaxtrace.studies._shared.page import MAX_ROWS, terminal_table, write_study
from jaxtrace.studies._shared.result import Picture, Result, Table

FRAME = pd.DataFrame({"model": ["<script>alert(1)</script>", "b"], "auroc": [0.98765, np.nan], "n": [12, 3]})


@pytest.fixture
def result():
    themes = []

    def draw(theme):
        themes.append(theme)
        return new_figure(theme, 2, 1)

    tables = {"scores": Table(FRAME, "rows are <i>models</i>"), "many": Table(pd.DataFrame({"x": range(99)}), "x")}
    return Result("dynamics", "is 1 < 2?", tables, {"curve": Picture(draw, "a curve")}, ("four & no more",)), themes


def test_tables_and_pictures_are_written(result, tmp_path):
    result, themes = result
    page = write_study(result, tmp_path / "new")
    assert page == tmp_path / "new" / "study.html"
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "new" / "tables" / "scores.csv"), FRAME)
    assert len(pd.read_csv(tmp_path / "new" / "tables" / "many.csv")) == 99
    assert themes == [LIGHT, DARK]
    assert (tmp_path / "new" / "curve.png").read_bytes() == png(new_figure(LIGHT, 2, 1))


def test_the_page_escapes_text_and_truncates_tables(result, tmp_path):
    text = write_study(result[0], tmp_path).read_text(encoding="utf-8")
    assert "<script" not in text and "&lt;script&gt;" in text and "&lt;i&gt;" in text and "1 &lt; 2" in text
    assert "four &amp; no more" in text and "0.9877" in text and ">–<" in text
    assert f"The first {MAX_ROWS} of 99 rows; tables/many.csv has all." in text
    assert "http" not in text.replace("http-equiv", "")


def test_intervals_are_shown_beside_their_values():
    frame = pd.DataFrame({"x": [0.5, 1.0], "x_low": [0.25, np.nan], "n": [4, 1], "x_high": [0.75, np.nan]})
    columns = terminal_table("t", Table(frame, "t")).columns
    assert [column.header for column in columns] == ["x", "n"]
    assert [*columns[0].cells] == ["0.5 [0.25, 0.75]", "1 [–, –]"]


def test_intervals_over_few_units_are_marked_everywhere(tmp_path):
    rows = [{"who": n, **bootstrap(np.mean, np.arange(n)).columns("x"), "n": n} for n in (4, 40)]
    table = Table(pd.DataFrame(rows), "means")
    shown = terminal_table("t", table)
    cells = [*next(column for column in shown.columns if column.header == "x").cells]
    assert cells[0].endswith("]*") and cells[1].endswith("]") and shown.caption == FEW_NOTE
    drawn = []

    def draw(theme):
        drawn.append(new_figure(theme, 3, 2))
        return drawn[-1]

    pictures = {"few": Picture(draw, "few means", few=True), "many": Picture(draw, "many means")}
    page = write_study(Result("s", "q", {"t": table}, pictures), tmp_path).read_text(encoding="utf-8")
    assert "]*</td>" in page and f"means {FEW_NOTE}" in page and f"few means {FEW_NOTE}" in page
    assert f"many means {FEW_NOTE}" not in page
    assert [figure.get_supxlabel() for figure in drawn] == [FEW_NOTE, FEW_NOTE, "", ""]
    assert pd.read_csv(tmp_path / "tables" / "t.csv")["x_few"].to_list() == [True, False]
    many = Table(table.frame[1:], "means")
    assert not many.few and terminal_table("t", many).caption is None


def test_the_terminal_table_truncates_and_escapes(result):
    tables = result[0].tables
    assert terminal_table("many", tables["many"]).row_count == MAX_ROWS
    assert [list(column.cells) for column in terminal_table("scores", tables["scores"]).columns] == [
        [r"\<script>alert(1)\</script>".replace("\\", ""), "b"],
        ["0.9877", "–"],
        ["12", "3"],
    ]
