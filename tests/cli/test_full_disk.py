"""Every verb that writes, on a small disk of its own that fills: one line, no loss, no partial file."""

import os
import subprocess

import pytest

PROMPTS = ("demo", "--task", "lab", "--limit", 24, "--max-new-tokens", 4, "--out")
LENS = ("demo", "--task", "lab", "--limit", 60, "--steps", 2, "--batch", 2, "--length", 16, "--out")
STUDY = ("--by", "stated", "--resamples", 100, "--overwrite", "--out", "OUT")
VERBS = {
    "trace": ("trace", *PROMPTS, "OUT"),
    "sweep": ("sweep", "SWEEP", "--out", "OUT"),
    "report": ("report", "TRACE", "--overwrite", "--out", "OUT"),
    "grade": ("grade", "TRACE", "--overwrite", "--out", "OUT"),
    "estimate": ("estimate", "TRACE", "--overwrite", "--out", "OUT"),
    "study": ("study", "patterns", "TRACE", *STUDY),
    "study of a model": ("study", "patterns", "--model", *PROMPTS[:-1], *STUDY),
    "tuned-lens": ("tuned-lens", *LENS, "OUT"),
    "convert": ("convert", "demo", "OUT"),
}
SWEEP = "models: demo\ntasks: [{task: lab, name: lab}]\nsettings: {limit: 6, max_new_tokens: 4}\n"
OLDER = {"report": "", "grade": "", "estimate": "", "study": "study.html", "study of a model": "study.html"}
ROOM = (0, 4096, 16_384, 65_536, 262_144, 1_048_576)  # bytes


@pytest.fixture(scope="module")
def traced(tmp_path_factory, jaxtrace):
    directory = tmp_path_factory.mktemp("traced")
    assert jaxtrace("trace", *PROMPTS, directory / "trace").status == 0
    (directory / "sweep.yaml").write_text(SWEEP)
    return {"TRACE": directory / "trace", "SWEEP": directory / "sweep.yaml"}


@pytest.fixture
def disk(tmp_path):
    """A disk of 8 MiB in memory."""
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", tmp_path], capture_output=True)
    if mounted.returncode:
        pytest.skip("only root may mount a small disk")
    yield tmp_path
    subprocess.run(["umount", tmp_path], check=True)


@pytest.mark.nightly
@pytest.mark.parametrize("room", ROOM)
@pytest.mark.parametrize("verb", VERBS)
def test_a_full_disk_ends_a_verb_in_one_line_and_loses_nothing(jaxtrace, no_plots, traced, disk, verb, room):
    out = disk / "out"
    older = out / OLDER[verb] if verb in OLDER else None
    if older:
        older.parent.mkdir(exist_ok=True)
        older.write_text("older")
    free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
    (disk / "fill").write_bytes(bytes(free - room))
    places = {**traced, "OUT": out}
    done = jaxtrace(*(places.get(word, word) for word in VERBS[verb]))
    assert done.status in (0, 1 if verb == "sweep" else 2, 2), done.err
    if done.status:
        assert done.err.splitlines()[-1].startswith("jaxtrace: ") and "Traceback" not in done.err, done.err
        assert "No space left on device" in done.err and (older is None or older.read_text() == "older"), done.err
    else:
        assert older is None or older.read_text() != "older"
    leftovers = [path for path in disk.rglob("*.tmp") if not path.is_dir()]
    assert not leftovers
