import jax
import pytest
import yaml

import jaxtrace as jt
from jaxtrace import run
from jaxtrace.sweeping import Watch, open_sweep, read_sweep

SMALL = {"limit": 5, "max_new_tokens": 3, "batch_size": 2, "probes": "output"}
SETTINGS = {"models": "demo", "samplers": ["greedy", {"temperature": 0.8}], "settings": SMALL}


class RecordingWatch(Watch):
    """Keeps the arguments of its calls."""

    def __init__(self):
        self.ends, self.starts, self.prompts, self.written = [], [], 0, []

    def began(self, cell, total, done):
        self.starts.append((cell.run.split("-")[0], total, done))

    def progress(self, prompts, tokens, entropy):
        self.prompts += prompts

    def rows(self, rows):
        self.written += [number for number, _ in rows]

    def ended(self, cell, record):
        self.ends.append((cell.run.split("-")[0], record.state))


@pytest.fixture
def programs_stay(monkeypatch):
    """Keep compiled programs from one sweep of the same model to the next."""
    monkeypatch.setattr(jax, "clear_caches", lambda: None)


@pytest.fixture
def small_parts(monkeypatch):
    """Write every batch as its own part."""
    monkeypatch.setattr(run, "PART_SECONDS", 0.0)


@pytest.fixture
def swept(tmp_path, programs_stay, small_parts):
    """Run a sweep into a directory of the test; return its callbacks' record, manifest and dataset."""

    def sweep(root="out", watch=None, **fields):
        file, watch = tmp_path / "sweep.yaml", watch or RecordingWatch()
        place = root if "://" in str(root) else tmp_path / root
        file.write_text(yaml.safe_dump(SETTINGS | fields))
        opened = open_sweep(read_sweep(file), place, watch)
        opened.run(watch)
        return watch, opened.manifest, jt.open(place)

    return sweep
