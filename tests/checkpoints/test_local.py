"""Local copies of published models, by short name."""

import json
import shutil

import pytest

from jaxtrace.checkpoints.embedded import demo_path
from jaxtrace.checkpoints.local import local_copy
from jaxtrace.errors import CheckpointError
from jaxtrace.model import open_model_checkpoint
from jaxtrace.models.published import PublishedModel, find_published
from jaxtrace.run import load_traced
from jaxtrace.traces.trace import Trace
from tests.checkpoints.conftest import CONFIG, random_weights
from tests.checkpoints.gguf_files import write_gguf


@pytest.mark.parametrize("folder", ["smollm2-135m", "smollm2-135m-instruct"])
def test_a_short_name_opens_the_local_copy(folder, tmp_path, monkeypatch):
    shutil.copytree(demo_path(), tmp_path / folder)
    monkeypatch.setenv("JAXTRACE_MODELS", str(tmp_path))
    checkpoint = open_model_checkpoint("smollm2")
    assert checkpoint.directory == tmp_path / folder
    assert checkpoint.name == "HuggingFaceTB/SmolLM2-135M-Instruct (local copy)"
    assert open_model_checkpoint(checkpoint.name).directory == checkpoint.directory  # the name that runs store


def test_a_trace_of_a_local_copy_loads_its_model_again(tmp_path, monkeypatch):
    shutil.copytree(demo_path(), tmp_path / "smollm2-135m")
    monkeypatch.setenv("JAXTRACE_MODELS", str(tmp_path))
    trace = Trace([], {"model": open_model_checkpoint("smollm2").name, "revision": None})
    assert load_traced(trace).name == trace.info["model"]
    shutil.rmtree(tmp_path / "smollm2-135m")
    monkeypatch.setattr("jaxtrace.checkpoints.huggingface.snapshot_download", lambda *_, **__: None)  # no network
    with pytest.raises(CheckpointError, match=r"^HuggingFaceTB/SmolLM2-135M-Instruct: is no directory here"):
        load_traced(trace)


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


GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"


@pytest.mark.parametrize("name", [GGUF, "smollm2-135m-instruct-q8_0.gguf", "SmolLM2-135M-Instruct-00001-of-00002.gguf"])
def test_a_short_name_stands_for_a_gguf_file_with_this_name(name, tmp_path, monkeypatch):
    monkeypatch.setenv("JAXTRACE_MODELS", str(tmp_path))
    for other in ("SmolLM2-360M-Instruct.Q4_1.gguf", "smollm2-135m-instruct-tuned-Q4_0.gguf", "mmproj-model.gguf"):
        (tmp_path / other).touch()
    (tmp_path / name).touch()
    assert local_copy(find_published("smollm2")) == tmp_path / name
    assert local_copy(find_published("gemma-2-2b")) is None
    monkeypatch.setenv("JAXTRACE_MODELS", str(tmp_path / name))
    assert local_copy(find_published("smollm2")) == tmp_path / name


def test_one_of_several_gguf_files_is_named_by_its_path(tmp_path, monkeypatch):
    for name in (GGUF, "SmolLM2-135M-Instruct.Q8_0.gguf"):
        (tmp_path / name).touch()
    monkeypatch.setenv("JAXTRACE_MODELS", str(tmp_path))
    with pytest.raises(
        CheckpointError, match=rf"several copies of smollm2-135m-instruct \({GGUF}.*give the path of one"
    ):
        open_model_checkpoint("smollm2")


def test_a_gguf_file_under_any_name_stands_for_a_model_of_its_shape(tmp_path, monkeypatch):
    model = find_published("smollm2")
    small = PublishedModel("Tiny", "someone/tiny", 0, CONFIG | {"rope_theta": 500.0}, "tiny")
    file = write_gguf(tmp_path / "model.gguf", small.raw, random_weights(json.dumps(small.raw)))
    monkeypatch.setenv("JAXTRACE_MODELS", str(file))
    assert local_copy(small) == file and local_copy(model) is None
    monkeypatch.setattr("jaxtrace.model.find_published", lambda name: small)
    assert open_model_checkpoint("tiny").name == "someone/tiny (local copy, model.gguf)"
    assert open_model_checkpoint("someone/tiny (local copy, model.gguf)").name == open_model_checkpoint("tiny").name
