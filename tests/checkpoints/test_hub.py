"""Hub ids: only needed files are fetched, the commit is recorded, and the hub's hashes are used."""

import fnmatch
import hashlib
import json
import shutil

import pytest

import jaxtrace
from jaxtrace import CheckpointError, ConfigError, Probes
from jaxtrace.checkpoints import huggingface
from jaxtrace.checkpoints.convert import convert
from jaxtrace.checkpoints.huggingface import open_checkpoint
from jaxtrace.engine.settings import Settings

COMMITS = {None: "a" * 40, "v1": "b" * 40}
UNNEEDED = ("pytorch_model.bin", "consolidated.safetensors", "original/params.json", "checkpoint-5/config.json")
UNNEEDED += ("checkpoint-5/model.safetensors", "model.fp16.safetensors", "onnx/model.onnx", "model.Q4_K.gguf")
UNNEEDED += ("adapter_model.safetensors", "README.md", "modeling_custom.py", "trainer_state.json")


class Hub:
    """A repository and the cache that fetching fills, laid out as huggingface_hub lays it out."""

    def __init__(self, files, cache):
        self.files, self.cache, self.fetched = files, cache, []
        for name in UNNEEDED:
            (files / name).parent.mkdir(exist_ok=True)
            (files / name).write_text("{}")

    def snapshot_download(self, name, *, allow_patterns, revision=None):
        assert name in ("someone/model", "someone/model-GGUF")
        commit = COMMITS.get(revision, revision)
        if commit not in COMMITS.values():
            raise OSError(f"404: no revision {revision}")
        snapshot = self.cache / "snapshots" / commit
        for path in sorted(self.files.rglob("*")):
            file = str(path.relative_to(self.files))
            if path.is_file() and any(fnmatch.fnmatch(file, pattern) for pattern in allow_patterns):
                blob = self.cache / "blobs" / hashlib.sha256(path.read_bytes()).hexdigest()
                blob.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, blob)
                (snapshot / file).parent.mkdir(parents=True, exist_ok=True)
                (snapshot / file).unlink(missing_ok=True)
                (snapshot / file).symlink_to(f"../../blobs/{blob.name}")
                self.fetched.append(file)
        return str(snapshot)


@pytest.fixture
def hub(folder, tmp_path, monkeypatch):
    folder.write()
    hub = Hub(folder.path, tmp_path / "cache")
    monkeypatch.setattr(huggingface, "snapshot_download", hub.snapshot_download)
    return hub


def test_only_needed_files_are_fetched(hub, folder):
    (folder.path / "generation_config.json").write_text("{}")
    jaxtrace.load("someone/model")
    assert {*hub.fetched} == {"config.json", "generation_config.json", "model.safetensors"}


def test_the_shards_of_an_index_are_fetched_only_without_a_single_file(hub, folder):
    index = "model.safetensors.index.json"
    folder.write_sharded()
    (folder.path / "three.safetensors").write_text("")
    jaxtrace.load("someone/model")
    assert {*hub.fetched} == {"config.json", index, "one.safetensors", "two.safetensors"}
    hub.fetched.clear()
    shutil.rmtree(hub.cache)
    folder.write()
    jaxtrace.load("someone/model")
    assert {*hub.fetched} == {"config.json", index, "model.safetensors"}


def test_weights_of_an_unsupported_model_are_not_fetched(hub, folder):
    (folder.path / "config.json").write_text('{"model_type": "falcon"}')
    with pytest.raises(CheckpointError, match="'falcon' is not supported"):
        jaxtrace.load("someone/model")
    assert {*hub.fetched} == {"config.json"}


@pytest.mark.parametrize("revision", [None, "v1", "b" * 40])
def test_the_resolved_commit_is_recorded_beside_the_given_name(hub, tmp_path, revision):
    model = jaxtrace.load("someone/model", revision=revision)
    commit = COMMITS.get(revision, revision)
    info = model.info("score", Settings(Probes.none()))
    assert (info["revision"], info["revision_name"]) == (model.revision, model.revision_name) == (commit, revision)
    assert open_checkpoint(str(hub.cache / "snapshots" / commit)).revision == commit
    convert(open_checkpoint("someone/model", revision), tmp_path / "out")
    converted = open_checkpoint(str(tmp_path / "out"))
    assert (converted.revision, converted.revision_name) == (commit, revision)


def test_a_missing_revision_is_named(hub):
    with pytest.raises(CheckpointError, match=r"someone/model: .* at revision 'v9' .*404"):
        jaxtrace.load("someone/model", revision="v9")


@pytest.mark.parametrize(
    ("name", "options", "reason"),
    [
        ("demo", {}, "demo comes with jaxtrace"),
        (".", {}, r"\. is a path here"),
        ("llama-3.2-1b", {"random": True}, "random weights are not fetched"),
    ],
)
def test_a_revision_without_a_hub_id_is_refused(name, options, reason):
    with pytest.raises(ConfigError, match=f"revision is 'v1', but {reason}"):
        jaxtrace.load(name, revision="v1", **options)


def test_the_hashes_of_the_hub_are_used(hub, folder, monkeypatch):
    expected = open_checkpoint(str(folder.path)).fingerprint()
    hashed = []
    digest = hashlib.file_digest
    monkeypatch.setattr(hashlib, "file_digest", lambda file, kind: (hashed.append(file.name), digest(file, kind))[1])
    assert open_checkpoint("someone/model").fingerprint() == expected
    assert hashed == []


def test_an_adapter_on_the_hub_is_named(hub, folder):
    for name in ("config.json", "model.safetensors"):
        (folder.path / name).unlink()
    (folder.path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "someone/base"}))
    with pytest.raises(CheckpointError, match="adapter of someone/base"):
        jaxtrace.load("someone/model")


def test_gguf_on_the_hub_is_named(hub, folder):
    """Nothing is fetched, so that the hub's client makes no directory."""
    for name in ("config.json", "model.safetensors"):
        (folder.path / name).unlink()
    with pytest.raises(CheckpointError, match="someone/model-GGUF: holds GGUF files; download one"):
        jaxtrace.load("someone/model-GGUF")
    with pytest.raises(CheckpointError, match=r"someone/model: holds no config\.json"):
        jaxtrace.load("someone/model")
