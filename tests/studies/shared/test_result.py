"""A result on disk: every row in its file, every text escaped, every picture in both themes."""

import numpy as np
import pandas as pd
import pytest

from jaxtrace.figures.html import png
from jaxtrace.figures.theme import DARK, LIGHT, new_figure
from jaxtrace.statistics.intervals import FEW_NOTE, bootstrap
from jaxtrace.studies._shared.page import write_study
from jaxtrace.studies._shared.result import MAX_ROWS, Picture, Result, Table
from tests.studies.shared.test_terminal import text_of

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


def test_intervals_over_few_units_are_marked_everywhere(tmp_path):
    rows = [{"who": n, **bootstrap(np.mean, np.arange(n)).columns("x"), "n": n} for n in (4, 40)]
    table = Table(pd.DataFrame(rows), "means")
    lines = text_of(table).splitlines()
    assert "]*" in lines[3] and "]*" not in lines[4] and "".join(lines[5:]).startswith(FEW_NOTE[:40])
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
    assert not many.few and "*" not in text_of(many)
