import json

import pytest

from jaxtrace.errors import ConfigError, StoreError
from jaxtrace.files import atomic_file, read_json, read_yaml, write_atomically


@pytest.mark.parametrize("shared", [False, True])
def test_write_atomically_replaces_the_whole_file(tmp_path, shared):
    file = tmp_path / "a.json"
    write_atomically(file, '{"text": "é"}', shared=shared)
    write_atomically(file, b'{"text": "e"}', shared=shared)
    assert read_json(file) == {"text": "e"}
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_interrupted_write_keeps_the_old_file(tmp_path):
    file = tmp_path / "a.bin"
    write_atomically(file, b"old")
    with pytest.raises(KeyboardInterrupt), atomic_file(file) as half:
        half.write(b"ne")
        raise KeyboardInterrupt
    assert file.read_bytes() == b"old" and len(list(tmp_path.iterdir())) == 1


def test_read_json_names_file_problem_and_advice(tmp_path):
    with pytest.raises(StoreError, match=r"gone\.json: cannot be read \(No such file or directory\); restore it"):
        read_json(tmp_path / "gone.json", StoreError, "restore it")
    for content, problem in (("{", "not valid JSON"), (json.dumps([1]), "not a JSON object")):
        (tmp_path / "a.json").write_text(content)
        with pytest.raises(ConfigError, match=rf"a\.json: {problem}.*; give a JSON file"):
            read_json(tmp_path / "a.json")


def test_read_yaml_refuses_what_is_no_mapping(tmp_path):
    file = tmp_path / "a.yaml"
    file.write_text("seed: 3\n")
    assert read_yaml(file) == {"seed": 3}
    for content, problem in (
        (b"a: [1\n", "not valid YAML"),
        (b"- a\n", "not a YAML mapping"),
        (b"\xff", "cannot be read"),
    ):
        file.write_bytes(content)
        with pytest.raises(ConfigError, match=rf"a\.yaml: {problem}"):
            read_yaml(file)
