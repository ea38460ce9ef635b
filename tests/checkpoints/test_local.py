"""Local copies of published models, by short name."""

import shutil

import pytest

from jaxtrace.checkpoints.embedded import demo_path
from jaxtrace.checkpoints.local import local_copy
from jaxtrace.model import open_model_checkpoint
from jaxtrace.models.published import find_published


@pytest.mark.parametrize("folder", ["smollm2-135m", "smollm2-135m-instruct"])
def test_a_short_name_opens_the_local_copy(folder, tmp_path, monkeypatch):
    shutil.copytree(demo_path(), tmp_path / folder)
    monkeypatch.setenv("JAXTRACE_MODELS", str(tmp_path))
    checkpoint = open_model_checkpoint("smollm2")
    assert checkpoint.directory == tmp_path / folder
    assert checkpoint.name == "HuggingFaceTB/SmolLM2-135M-Instruct (local copy)"


def test_a_copy_in_the_cache_of_the_hub_comes_first(tmp_path, monkeypatch):
    (tmp_path / "smollm2-135m").mkdir()
    (tmp_path / "smollm2-135m" / "config.json").write_text("{}")
    monkeypatch.setenv("JAXTRACE_MODELS", str(tmp_path))
    model = find_published("smollm2")
    assert local_copy(model) == tmp_path / "smollm2-135m"
    monkeypatch.setattr("jaxtrace.checkpoints.local.try_to_load_from_cache", lambda *_: str(tmp_path / "config.json"))
    assert local_copy(model) is None


def test_without_a_local_copy_there_is_none(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXTRACE_MODELS", str(tmp_path))
    assert local_copy(find_published("smollm2")) is None
