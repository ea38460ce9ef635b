"""Documents that nobody writes in good faith: each is refused in one line, within seconds and bounded memory."""

import json
import os
import resource
import socket
import time

import pytest

from jaxtrace.checkpoints.converted import read_conversion
from jaxtrace.checkpoints.embedded import demo_path
from jaxtrace.checkpoints.huggingface import open_checkpoint
from jaxtrace.checkpoints.images import ImageProcessor
from jaxtrace.checkpoints.orbax import OrbaxWeights
from jaxtrace.cli.study import study_settings
from jaxtrace.documents import read_json, read_text
from jaxtrace.engine.tuned_lens import read_lens
from jaxtrace.errors import JaxtraceError, StudyError
from jaxtrace.grading.labels import read_labels
from jaxtrace.lab.tasks import read_settings
from jaxtrace.settings.run import run_config
from jaxtrace.studies._shared.settings import StudyConfig
from jaxtrace.studies.confidence import files as confidence_files
from jaxtrace.sweeping.cells import read_sweep
from jaxtrace.tasks import load_task, multiple_choice
from jaxtrace.tasks.reading import read_csv
from tests.checkpoints.conftest import CONFIG, Folder

DEEP = 100_000
HUGE = 5 * 2**30  # bytes of a sparse file, which takes no disk
MOST_SECONDS, MOST_MEMORY = 20, 512 * 2**20  # a busy machine is slow


def dangling(path):
    path.symlink_to("nowhere/at/all")


def device(path):
    path.symlink_to("/dev/zero")


def a_socket(path):
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path.name)  # relative: the path of a socket may have 107 bytes


def sparse(path):
    path.touch()
    os.truncate(path, HUGE)


def written(content):
    return lambda path: path.write_bytes(content)


ALIASES = [b"a: &a [x,x,x,x,x,x,x,x,x,x]"]
ALIASES += [b"%c: &%c [%s]" % (c, c, b",".join([b"*%c" % (c - 1)] * 10)) for c in range(ord("b"), ord("k"))]
MERGES = [b"a0: &a0 {x: 1}", *(b"a%d: &a%d {<<: *a%d}" % (i, i, i - 1) for i in range(1, 5000))]

FILES = {"fifo": os.mkfifo, "directory": os.mkdir, "sparse": sparse}
OTHER_FILES = {"device": device, "socket": a_socket, "dangling": dangling}
TEXTS = {
    "invalid UTF-8": written(b'"\xff"'),
    "UTF-16": written('{"a": 1}\n'.encode("utf-16")),
    "NUL": written(b'{"a": "\0"}'),
    "long line": written(b'{"a": "' + b"x" * 20_000_000 + b'"}'),
}
SOME_JSON = {"deep lists": written(b"[" * DEEP), "half a surrogate pair": written(b'{"a": "\\ud800"}')}
JSON = TEXTS | SOME_JSON | {
    "deep closed lists": written(b"[" * DEEP + b"]" * DEEP),
    "deep objects": written(b'{"a":' * DEEP),
    "empty": written(b""),
    "digits": written(b'{"a": ' + b"9" * 5000 + b"}"),
    "repeated key": written(b'{"a": 1, "a": 2}'),
}  # fmt: skip
NUMBERS = {"NaN": written(b'{"a": NaN}'), "beyond a float64": written(b'{"a": -1e400}')}
YAML = JSON | {
    "deep YAML": written(b"- " * DEEP),
    "deep keys": written(b"? " * DEEP),
    "tag": written(b"seed: !!int x"),
    "Python tag": written(b"seed: !!python/object/apply:os.system [id]"),
    "binary tag": written(b"seed: !!binary aGk="),
    "own tag": written(b"seed: !foo 1"),
    "impossible number": written(b"seed: 0b_"),
    "hexadecimal digits": written(b"seed: 0x" + b"f" * 5000),
    "alias of itself": written(b"run: &a [*a]"),
    "many aliases": written(b"\n".join(ALIASES)),
    "many merges": written(b"\n".join(MERGES)),
    "many keys": written(b"{" + b"".join(b"a%d," % i for i in range(100_000)) + b"}"),
}


def checkpoint_file(name, **more):
    def call(folder, hostile):
        tiny = Folder(folder / "tiny", CONFIG)
        tiny.write_sharded() if more.get("sharded") else tiny.write()
        (folder / "tiny" / "tokenizer.json").write_bytes((demo_path() / "tokenizer.json").read_bytes())
        (folder / "tiny" / name).unlink(missing_ok=True)
        hostile(folder / "tiny" / name)
        open_checkpoint(str(folder / "tiny"))

    return call


def beside(name, read):
    """A document of a given name that a function reads by its path."""

    def call(folder, hostile):
        hostile(folder / name)
        read(folder / name)

    return call


def confidence(name):
    def call(folder, hostile):
        described = {"format": 2, "hidden": 0, "answers": ["entropy.mean"], "tokens": ["entropy"], "made": {}}
        (folder / confidence_files.JSON).write_text(json.dumps(described))
        (folder / name).unlink(missing_ok=True)
        hostile(folder / name)
        (folder / confidence_files.TENSORS).touch()
        confidence_files.load(folder)

    return call


def tokenizer_without_fast_form(name):
    def call(folder, hostile):
        tiny = Folder(folder / "tiny", CONFIG)
        tiny.write()
        (folder / "tiny" / "vocab.json").write_text("{}")
        (folder / "tiny" / name).unlink(missing_ok=True)
        hostile(folder / "tiny" / name)
        open_checkpoint(str(folder / "tiny"))

    return call


JSON_KINDS = {
    "config.json": checkpoint_file("config.json"),
    "generation_config.json": checkpoint_file("generation_config.json"),
    "tokenizer.json": checkpoint_file("tokenizer.json"),
    "tokenizer_config.json": checkpoint_file("tokenizer_config.json"),
    "special_tokens_map.json": checkpoint_file("special_tokens_map.json"),
    "chat_template.json": checkpoint_file("chat_template.json"),
    "index": checkpoint_file("model.safetensors.index.json", sharded=True),
    "image processor": beside("preprocessor_config.json", lambda path: ImageProcessor.load(path.parent, None)),
    "conversion": beside("jaxtrace.json", lambda path: read_conversion(path.parent, "tiny")),
    "lens card": beside("lens.json", lambda path: read_lens(path.parent, "tiny", "", None, None)),
    "confidence.json": confidence("confidence.json"),
    "world.json": beside("world.json", lambda path: read_settings(path.parent)),
    "stored reply": beside("reply.json", lambda path: read_json(path, StudyError)),
    "choices": beside("choices.json", lambda path: multiple_choice.load(str(path))),
    "choices by line": beside("choices.jsonl", lambda path: multiple_choice.load(str(path))),
    "prompts": beside("prompts.jsonl", lambda path: load_task("prompts", path)),
    "gsm8k": beside("test.jsonl", lambda path: load_task("gsm8k", path)),
    "labels": beside("labels.jsonl", read_labels),
}
YAML_KINDS = {
    "run": beside("run.yaml", run_config),
    "sweep": beside("sweep.yaml", read_sweep),
    "study": beside("study.yaml", lambda path: study_settings(StudyConfig, path, {}, {})),
}
TEXT_KINDS = {
    "lines": beside("prompts.txt", lambda path: load_task("prompts", path)),
    "csv": beside("prompts.csv", lambda path: load_task("prompts", path)),
    "csv labels": beside("labels.csv", lambda path: [*read_csv(path)]),
    "truthfulqa": beside("TruthfulQA.csv", lambda path: load_task("truthfulqa", path)),
    "simpleqa": beside("test.csv", lambda path: load_task("simpleqa", path)),
    "mmlu": beside("art_test.csv", lambda path: load_task("mmlu", path)),
    "tinystories": beside("stories.txt", lambda path: load_task("tinystories", path)),
    "formats": beside("topics.txt", lambda path: load_task("formats", path)),
}
OTHER_KINDS = {
    "vocab.json": tokenizer_without_fast_form("vocab.json"),
    "merges.txt": tokenizer_without_fast_form("merges.txt"),
    "weights": checkpoint_file("model.safetensors"),
    "shard": checkpoint_file("one.safetensors", sharded=True),
    "chat_template.jinja": checkpoint_file("chat_template.jinja"),
    "confidence.safetensors": confidence("confidence.safetensors"),
    "parquet": beside("test.parquet", lambda path: load_task("gsm8k", path)),
    "primer": beside("primer.txt", lambda path: read_text(path, StudyError, "name another")),
    "stored parameters": beside("params", lambda path: OrbaxWeights(None, path.parent, "tiny")),
}
# Every kind of document meets some contents, and one kind of each reader meets all of them.
KINDS = JSON_KINDS | YAML_KINDS | TEXT_KINDS | OTHER_KINDS
CASES = {
    *((kind, content) for kind in KINDS for content in FILES),
    *((kind, content) for kind in JSON_KINDS | YAML_KINDS for content in SOME_JSON),
    *((kind, "invalid UTF-8") for kind in TEXT_KINDS),
    *((kind, content) for kind in ("config.json", "world.json", "prompts") for content in JSON | OTHER_FILES),
    *((kind, content) for kind in ("world.json", "prompts") for content in NUMBERS),
    *(("run", content) for content in YAML | OTHER_FILES),
    *(("csv", content) for content in TEXTS | OTHER_FILES),
}
CASES.remove(("chat_template.jinja", "sparse"))  # refused when it is used, so that raw prompts work
CONTENTS = FILES | OTHER_FILES | NUMBERS | YAML


@pytest.mark.parametrize(("kind", "content"), sorted(CASES))
def test_a_hostile_document_is_refused_in_one_line(tmp_path, monkeypatch, kind, content):
    monkeypatch.chdir(tmp_path)  # for the sockets
    started, memory = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    with pytest.raises(JaxtraceError) as error:
        KINDS[kind](tmp_path, CONTENTS[content])
    assert "\n" not in str(error.value) and "; " in str(error.value) and len(str(error.value)) < 800
    assert time.monotonic() - started < MOST_SECONDS
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - memory < MOST_MEMORY
