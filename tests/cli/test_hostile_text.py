"""Names, keys and texts of models and files that a terminal or a spreadsheet would obey are shown, and do nothing."""

import io
import json
import logging
import shutil
import unicodedata

import pandas as pd
import pytest
import yaml
from rich.console import Console
from safetensors.numpy import save_file

from jaxtrace import figures
from jaxtrace.checkpoints.embedded import demo_path
from jaxtrace.cli.app import _show_warning, _shown_notes
from jaxtrace.cli.output import PlainConsole, fail, say
from jaxtrace.errors import (
    ESCAPED,
    LONGEST_MESSAGE,
    LONGEST_VALUE,
    ConfigError,
    few,
    first_line,
    one_line,
    shown,
    visible,
)
from jaxtrace.studies._shared.csv import write_csv
from tests.figures.test_page import read
from tests.figures.traces import row, trace

HOSTILE = "a\x1b[31m\x07\r\x9b2J\u202e\u2066\u200b\u2028\u2029[red]:smile:[link=x]b"
SHOWN = r"a\x1b[31m\x07\r\x9b2J\u202e\u2066\u200b\u2028\u2029[red]:smile:[link=x]b"
LONG = "ab " * 20_000


def safe(*texts):
    """Assert that a terminal would obey nothing in some texts, and return them as one."""
    for text in texts:
        bad = {character for character in text if unicodedata.category(character) in ESCAPED} - {"\n"}
        assert not bad, bad
    return "".join(texts)


def refused(done):
    """Return the one line of a refused command."""
    line = safe(done.out, done.err)
    assert done.status == 2 and line.startswith("jaxtrace: ") and line.count("\n") == 1
    assert len(line) < LONGEST_MESSAGE + 20
    return line


@pytest.mark.parametrize(
    "words",
    [
        (HOSTILE,),
        ("trace", HOSTILE, "--text", "a"),
        ("trace", "demo", HOSTILE),
        ("trace", "demo", f"--{HOSTILE}"),
        ("trace", "demo", "--task", HOSTILE),
        ("trace", "demo", "--probes", HOSTILE),
        ("trace", "demo", "--prompts", HOSTILE),
        ("trace", "demo", "--config", HOSTILE),
        ("models", HOSTILE),
        ("plan", "--topology", HOSTILE),
        ("report", f"memory://{HOSTILE}", "--out", "x.html"),
        ("study", "lens", HOSTILE),
        ("study", HOSTILE),
        ("sweep", HOSTILE),
    ],
    ids=lambda words: "-".join(words[:2]).encode("unicode_escape").decode()[:30],
)
def test_a_hostile_argument_is_escaped_in_the_message(jaxtrace, words):
    refused(jaxtrace(*words))


@pytest.mark.parametrize("key", [HOSTILE, LONG, "x" * 50_000])
def test_a_hostile_key_of_a_yaml_file_is_escaped_and_cut(jaxtrace, tmp_path, key):
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump({key: 1}), encoding="utf-8")
    line = refused(jaxtrace("trace", "--config", file))
    assert "no such setting" in line and key[:40].split("\x1b")[0] in line
    file.write_text(yaml.safe_dump({"models": ["demo"], "tasks": [{key: key}]}), encoding="utf-8")
    refused(jaxtrace("sweep", file, "--dry-run"))


@pytest.fixture
def checkpoint(tmp_path):
    """Return a copy of the demo whose directory has a hostile name."""
    return shutil.copytree(demo_path(), tmp_path / HOSTILE)


def test_a_checkpoint_of_a_hostile_name_is_described(jaxtrace, checkpoint, monkeypatch):
    monkeypatch.chdir(checkpoint.parent)
    done = jaxtrace("info", checkpoint.name)
    assert done.status == 0 and r"a\x1b[31m" in safe(done.out, done.err) and "[red]:smile" in done.out


def test_hostile_names_in_a_checkpoint_are_escaped(jaxtrace, checkpoint):
    import numpy as np

    save_file({HOSTILE: np.zeros(1, np.float32), LONG: np.zeros(1, np.float32)}, checkpoint / "model.safetensors")
    refused(jaxtrace("trace", checkpoint, "--text", "a"))
    config = json.loads((checkpoint / "config.json").read_text())
    for key, value in (("model_type", HOSTILE), ("model_type", LONG), ("rope_scaling", {HOSTILE: LONG})):
        (checkpoint / "config.json").write_text(json.dumps(config | {key: value}))
        refused(jaxtrace("info", checkpoint))
    (checkpoint / "config.json").write_text(json.dumps(config | {HOSTILE: LONG}))
    done = jaxtrace("info", checkpoint)
    assert r"a\x1b[31m" in safe(done.out, done.err)


def test_a_hostile_prompt_is_named(jaxtrace, tmp_path):
    file = tmp_path / "prompts.jsonl"
    for prompt in ({"id": HOSTILE}, {"id": LONG}, {HOSTILE: 1, "system": 1}):
        file.write_text(json.dumps({"prompt": "word " * 999, **prompt}), encoding="utf-8")
        refused(jaxtrace("trace", "demo", "--prompts", file, "--out", tmp_path / "out"))


@pytest.fixture(scope="module")
def hostile_run(tmp_path_factory):
    """Return the directory of a trace whose every text is hostile."""
    import numpy as np

    rng, place = np.random.default_rng(0), tmp_path_factory.mktemp("runs") / HOSTILE
    sides = (HOSTILE, f"{HOSTILE}2")
    rows = [
        row(
            rng,
            [HOSTILE] * 4,
            id=f"{HOSTILE}{number}",
            prompt=HOSTILE,
            ids=[number] * 4,
            meta={"condition": sides[number % 2], "answer": HOSTILE, HOSTILE: HOSTILE, "seen": HOSTILE},
            layers=2,
            heads=2,
            stop="length",
        )
        for number in range(6)
    ]
    trace(rows, layers=2, heads=2, model=HOSTILE, note=HOSTILE).save(place)
    return place


def test_verbs_on_a_hostile_trace_print_nothing_that_a_terminal_obeys(jaxtrace, hostile_run, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.setattr("jaxtrace.figures.page._figures", lambda _: [])
    done = jaxtrace("info", hostile_run)
    assert r"a\x1b[31m" in safe(done.out, done.err) and done.status == 0  # a narrow terminal cuts names
    done = jaxtrace("grade", hostile_run, "--out", tmp_path / HOSTILE)
    assert safe(done.out, done.err) and done.status == 0
    done = jaxtrace("report", hostile_run, "--out", tmp_path / f"{HOSTILE}.html")
    assert "[red]" in safe(done.out, done.err) and done.status == 0
    for study, by in (("lens", HOSTILE), ("lens", "condition"), ("patterns", HOSTILE), ("dynamics", None)):
        refused(jaxtrace("study", study, hostile_run, *(("--by", by) if by else ()), "--out", tmp_path / "study"))


def test_tables_of_a_study_show_hostile_texts(jaxtrace, hostile_run, tmp_path, monkeypatch):
    monkeypatch.setattr("jaxtrace.studies._shared.page.png", lambda figure: b"")
    done = jaxtrace("study", "patterns", hostile_run, "--resamples", 100, "--out", tmp_path / HOSTILE)
    assert r"a\x1b" in safe(done.out, done.err) and done.status == 0
    page = (tmp_path / HOSTILE / "study.html").read_text(encoding="utf-8")
    assert SHOWN in safe(page)


def test_a_page_shows_hostile_names(hostile_run, tmp_path, monkeypatch):
    monkeypatch.setattr("jaxtrace.figures.page._figures", lambda _: [])
    from jaxtrace.traces import open_trace

    page = read(open_trace(hostile_run), tmp_path)
    for tag in ("title", "h1", "h3", "dt", "dd", "span", "th", "td"):
        safe(*page.texts[tag])
    assert page.texts["h1"] == [SHOWN]
    assert page.data["rows"][0]["pieces"] == [HOSTILE] * 4


def test_pictures_of_hostile_names_are_drawn(rng):
    from jaxtrace.figures.html import png
    from jaxtrace.figures.theme import LIGHT, legend, new_panel

    figure, axes = new_panel(LIGHT, 2, 2, f"{HOSTILE}模型$x_$")
    axes.plot([0, 1], label=f"{HOSTILE}$x_$")
    legend(axes, LIGHT)
    safe(*(text.get_text() for text in axes.get_legend().get_texts()))
    assert png(figure).startswith(b"\x89PNG")


def test_the_consoles_escape_whatever_is_printed():
    console = PlainConsole(file=io.StringIO(), width=300)
    console.print(HOSTILE, soft_wrap=True)
    say(HOSTILE, to=console)
    console.print(figures.summary_table(trace([], model=HOSTILE)))
    out = console.file.getvalue()
    assert safe(out).splitlines()[:2] == [SHOWN, SHOWN] and "[red]" in "".join(out.split()[2:])
    with_markup = Console(file=io.StringIO(), width=300)
    with_markup.print(figures.summary_table(trace([], model=HOSTILE)))
    assert "[red]" in "".join(safe(with_markup.file.getvalue()).split())


def test_warnings_log_records_and_failures_are_one_line(capsys):
    with _shown_notes():
        logging.getLogger("jaxtrace").warning(HOSTILE)
    _show_warning(UserWarning(f"{HOSTILE}\nmore"))
    with pytest.raises(SystemExit):
        fail(f"{HOSTILE}\nmore", 2)
    lines = safe(capsys.readouterr().err).splitlines()
    assert len(lines) == 3 and all(line.startswith("jaxtrace: a") for line in lines)
    assert lines[2] == rf"jaxtrace: {SHOWN}\nmore"


def test_a_message_is_one_line_with_values_of_bounded_length():
    assert str(ConfigError(f"x.yaml: {HOSTILE}\nis wrong")) == rf"x.yaml: {SHOWN}\nis wrong"
    assert one_line(one_line(HOSTILE)) == one_line(HOSTILE)
    assert len(shown("\x1b" * 999)) == len(shown("a" * 999)) == LONGEST_VALUE and shown("a b") == "a b"
    for value in ("a" * 9999, repr("a " * 9999), f"'{'a, ' * 9999}'"):
        message = str(ConfigError(f"run.yaml: top_p is {value}; give a number"))
        assert len(message) < LONGEST_VALUE + 60 and message.startswith("run.yaml: top_p is ")
        assert message.endswith("…; give a number")
    assert len(str(ConfigError("a b " * 9999))) < LONGEST_MESSAGE + 10
    assert len(few(["a" * 999] * 9)) < 6 * LONGEST_VALUE
    assert first_line(ValueError(f"\n{HOSTILE}")) in SHOWN
    assert visible("Ünïcode, 東京, 🦊, tab\t", keep="\t") == "Ünïcode, 東京, 🦊, tab\t"


def test_texts_in_a_csv_file_are_no_formulas(tmp_path):
    formulas = ["=1+1", "+1", "-2+3", "@SUM(1)", " =1", "\t1", "\r1", "\n=1", "＝1", "－1", "＋1", "＠1", "-0.5"]
    texts = [*formulas, "plain", "a=b", "", "'=1"]
    numbers = [-0.5 - i for i in range(len(texts))]
    frame = pd.DataFrame({"=name": texts, "x": numbers, "n": range(-3, len(texts) - 3), "yes": True, "none": None})
    write_csv(frame, tmp_path / "t.csv")
    back = pd.read_csv(tmp_path / "t.csv", keep_default_na=False, lineterminator="\n")
    assert list(back) == ["'=name", "x", "n", "yes", "none"]
    assert back["x"].tolist() == numbers and back["n"].tolist() == frame["n"].tolist() and back["yes"].all()
    with (tmp_path / "t.csv").open(encoding="utf-8", newline="") as file:
        import csv

        cells = [line[0] for line in csv.reader(file)][1:]
    assert cells == [f"'{text}" for text in formulas] + texts[len(formulas) :]
    assert frame["=name"].tolist() == texts
