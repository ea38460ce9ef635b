"""Commands that write a directory which another program is writing."""

import pytest
import yaml

from jaxtrace.lock import WriteLock

COMMANDS = {
    "trace": ("trace", "demo", "--out"),
    "trace --resume": ("trace", "demo", "--resume", "--out"),
    "sweep": ("sweep", "sweep.yaml", "--out"),
    "convert": ("convert", "demo"),
    "lab train": ("lab", "train", "--out"),
    "confidence train": ("confidence", "train", "trace", "--out"),
    "confidence apply": ("confidence", "apply", "trace", "trace", "--out"),
    "study": ("study", "dynamics", "trace", "--out"),
    "study --overwrite": ("study", "dynamics", "--model", "demo", "--overwrite", "--out"),
}


@pytest.mark.parametrize("words", COMMANDS.values(), ids=COMMANDS)
def test_second_writer_is_refused_at_once_in_one_line(jaxtrace, tmp_path, monkeypatch, words):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("jaxtrace.lock.WAIT_SECONDS", 0.05)
    monkeypatch.setattr("jaxtrace.run.open_config_model", lambda _: pytest.fail("a model was opened"))
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump({"models": "demo"}))
    (tmp_path / "trace").mkdir()
    with WriteLock("out"):
        before = [path.read_bytes() for path in (tmp_path / "out").iterdir()]
        done = jaxtrace(*words, "out")
        assert [path.read_bytes() for path in (tmp_path / "out").iterdir()] == before and len(before) == 1
    assert done.status == 2 and done.err.count("\n") == 1
    assert done.err.startswith("jaxtrace: out: pid ") and "has been writing it since" in done.err
