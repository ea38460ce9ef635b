import json

import pytest

from jaxtrace.documents import MAX_DEPTH, decode_json, read_json, read_yaml
from jaxtrace.errors import ConfigError, StoreError


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


def test_a_byte_order_mark_is_dropped(tmp_path):
    (tmp_path / "a.json").write_bytes(b'\xef\xbb\xbf{"a": 1}')
    (tmp_path / "a.yaml").write_bytes(b"\xef\xbb\xbfa: 1")
    assert read_json(tmp_path / "a.json") == read_yaml(tmp_path / "a.yaml") == {"a": 1}


def test_json_may_have_every_level_and_whole_surrogate_pairs():
    value = decode_json("[" * MAX_DEPTH + r'"\ud83d\ude00"' + "]" * MAX_DEPTH)
    for _ in range(MAX_DEPTH):
        (value,) = value
    assert value == "\U0001f600"
    with pytest.raises(ValueError, match="nested deeper than 100 levels"):
        decode_json("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1))


def test_numbers_that_are_not_finite_are_refused_unless_they_are_expected():
    for text in ("NaN", "-Infinity", "[1e400]"):
        with pytest.raises(ValueError, match=r"is not a JSON value|is beyond the range of a float64"):
            decode_json(text)
    assert decode_json('{"a": [Infinity, 1e400]}', finite=False) == {"a": [float("inf")] * 2}


def test_aliases_and_merges_of_yaml_are_read_and_what_looks_like_a_date_is_a_text(tmp_path):
    file = tmp_path / "a.yaml"
    file.write_text(
        "b0: &b0 {x: 1}\nb: &b {<<: *b0, z: 2}\nc: {<<: [*b, *b0], y: [*b0]}\n"
        "d: [2024-01-31, 3:0, 1:59.5, 7, 1.5, 0x10, yes, ~, .inf]\n"
    )
    assert read_yaml(file) == {
        "b0": {"x": 1},
        "b": {"x": 1, "z": 2},
        "c": {"x": 1, "z": 2, "y": [{"x": 1}]},
        "d": ["2024-01-31", "3:0", "1:59.5", 7, 1.5, 16, True, None, float("inf")],
    }
