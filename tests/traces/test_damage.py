"""Damaged runs: every reader refuses them in one line, or gives what was written."""

import dataclasses
import json
import os
import shutil
from collections import Counter

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jaxtrace.errors import StoreError
from jaxtrace.traces import TraceWriter, open_trace, reader
from jaxtrace.traces.parts import TABLES, check_part
from jaxtrace.traces.tables import from_tables, to_tables
from jaxtrace.traces.trace import Trace
from tests.traces.damage import FORMAT_1, info_of, mutated_documents, outcome, read_all
from tests.traces.rows import INFO, assert_same_row, make_row

EXHAUSTIVE = os.environ.get("HYPOTHESIS_PROFILE") == "long"  # one bit of every byte of footers and run.json


@pytest.fixture
def run(tmp_path):
    """Store a run of the present format, with every kind of column."""
    open_trace(FORMAT_1).save(tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture
def parts(tmp_path):
    """Store a complete run of three parts."""
    with TraceWriter(tmp_path / "parts", INFO) as writer:
        for number in range(3):
            writer.write([(number, make_row(number, 2))])
    return tmp_path / "parts"


def part(root, table, number=0):
    return root / table / f"part-{number:05d}.parquet"


def test_runs_of_format_1_open_and_are_written_again_unchanged(run):
    assert open_trace(FORMAT_1).runs[0].id is None
    assert outcome(read_all(run), read_all(FORMAT_1)) == "identical"


@pytest.mark.parametrize("cases", [24, pytest.param(5_000, marks=pytest.mark.nightly)])
def test_one_bit_flips_change_nothing_silently(run, cases):
    rng, want, described = np.random.default_rng(14), read_all(run), info_of(run)
    files = [*(part(run, table) for table in TABLES), run / "run.json"]
    bits = []
    for path in files:
        content = path.read_bytes()
        footer = int.from_bytes(content[-8:-4], "little") + 8 if path.suffix == ".parquet" else len(content)
        bits += [(path, 8 * (len(content) - 1 - byte) + rng.integers(8)) for byte in range(footer)]
        bits += [(path, bit) for bit in rng.integers(8 * len(content), size=cases // 4)]
    counts = Counter()
    for index in rng.permutation(len(bits))[: len(bits) if EXHAUSTIVE else cases]:
        path, bit = bits[index]
        content = bytearray(path.read_bytes())
        whole = bytes(content)
        content[bit // 8] ^= 1 << bit % 8
        path.write_bytes(content)
        result = outcome(read_all(run), want)
        if result == "identical" and info_of(run) != described:
            result = "different: description"
        counts[result] += 1
        assert result in ("refused", "identical"), (path.name, bit)
        path.write_bytes(whole)
    print(dict(counts))
    assert counts["refused"] > 0.9 * counts.total()


@pytest.mark.parametrize("cases", [12, pytest.param(2_500, marks=pytest.mark.nightly)])
@pytest.mark.parametrize("old", [False, True], ids=["format_2", "format_1"])
def test_damaged_descriptions_change_no_data(run, tmp_path, old, cases):
    root = shutil.copytree(FORMAT_1, tmp_path / "old") if old else run
    rng, want, described = np.random.default_rng(3), read_all(root), info_of(root)
    path = root / "run.json"
    for document in mutated_documents(path.read_text(encoding="utf-8"), rng, cases):
        path.write_bytes(document if isinstance(document, bytes) else document.encode(errors="surrogatepass"))
        assert outcome(read_all(root), want) in ("refused", "identical"), document
        assert old or info_of(root) in (None, described), document


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("layers", 3, "lens_renyi has a list of 6 values instead of 3"),
        ("heads", 1, "attention_entropy has a list of 8 values instead of 1"),
        ("heads", 10**9, r"info.heads is 1000000000; it must be less than or equal to 10000; restore it"),
        ("alphas", [0.5, 2.0], "has the column renyi_5, which its run did not record"),
        ("alphas", [0.5, 2.0, 5.0, 7.0], "has 0 columns renyi_7 instead of one"),
        ("mode", "score", "position is 0 in row 0, where"),
        ("layer_stride", 1, "lens_renyi has a list of 6 values instead of 18"),
        ("residuals", [], "has the column residual_0, which its run did not record"),
        ("residuals", [0, 0], "info.residuals is .*; 0 is there 2 times"),
        ("top_tokens", 3, "top_logprobs has a list of 2 values instead of 3"),
        ("attention_rows", [[1, 1]], "has the column attention_1_0, which"),
        ("attention_rows", [[9, 0]], "attention_rows has head 0 of layer 9; there are 8 heads and 6 layers"),
        ("prompt_positions", False, "step is -1"),
        ("lens_renyi", "yes", "info.lens_renyi is yes; it must be a valid boolean"),
    ],
)
def test_descriptions_are_compared_with_the_tables(tmp_path, field, value, message):
    root = shutil.copytree(FORMAT_1, tmp_path / "run")
    run = json.loads((root / "run.json").read_text(encoding="utf-8"))
    run["info"][field] = value
    (root / "run.json").write_text(json.dumps(run))
    with pytest.raises(StoreError, match=message):
        list(open_trace(root).rows)


def test_a_run_without_its_hash_is_no_old_run(run):
    path = run / "run.json"
    text = path.read_text(encoding="utf-8")
    for old, new in (('"sha256"', '"sha25"'), ('"format": 2', '"format": 1'), ('"seed": 0', '"seed": 4')):
        path.write_text(text.replace(old, new), encoding="utf-8")
        with pytest.raises(StoreError, match=r"run\.json: "):
            open_trace(run)


def other_run(root):
    with TraceWriter(root, INFO) as writer:
        writer.write([(0, make_row(0, 2))])


DAMAGES = {
    "table missing": lambda root, table: part(root, table).unlink(),
    "part missing": lambda root, _: [part(root, table).unlink() for table in TABLES],
    "tables swapped": lambda root, table: (
        shutil.copy(part(root, "prompts"), part(root, table))
        if table != "prompts"
        else shutil.copy(part(root, "tokens"), part(root, table))
    ),
    "parts swapped": lambda root, table: shutil.copy(part(root, table, 1), part(root, table)),
    "part duplicated": lambda root, _: [shutil.copy(part(root, table), part(root, table, 7)) for table in TABLES],
    "file truncated": lambda root, table: os.truncate(part(root, table), 900),
    "file emptied": lambda root, table: os.truncate(part(root, table), 0),
    "part of another run": lambda root, table: [
        other_run(root.parent / "other"),
        shutil.copy(part(root.parent / "other", table), part(root, table)),
    ],
    "rewritten by a tool": lambda root, table: pq.write_table(pq.read_table(part(root, table)), part(root, table)),
    "a directory": lambda root, table: [part(root, table).unlink(), part(root, table).mkdir()],
    "a named pipe": lambda root, table: [part(root, table).unlink(), os.mkfifo(part(root, table))],
}


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_parts_are_refused_and_repeated(parts, damage, table):
    DAMAGES[damage](parts, table)
    for name in ("rows", table):
        with pytest.raises(StoreError) as error:
            trace = open_trace(parts)
            _ = list(trace.rows) if name == "rows" else getattr(trace, table).to_table()
        assert "\n" not in str(error.value) and "resume the run" in str(error.value)
    if damage == "a directory":
        return
    with TraceWriter(parts, INFO, resume=True) as writer:
        missing = {0, 1, 2} - writer.done
        assert missing == (set() if damage == "part duplicated" else {0})
        writer.write([(0, make_row(0, 2))] if missing else [(3, make_row(3, 2))])
    for number, row in enumerate(open_trace(parts).rows):
        assert_same_row(row, make_row(number, 2))


def set_column(tables, table, name, values, kind=None):
    column = tables[table].schema.get_field_index(name)
    kind = kind or tables[table].schema.field(name).type
    tables[table] = tables[table].set_column(column, name, pa.array(values, kind))


TABLE_DAMAGES = {
    "prompts: lacks a value of the column id": lambda t: set_column(t, "prompts", "id", ["a", None]),
    "prompts: lacks a value of the column tokens": lambda t: set_column(t, "prompts", "tokens", [[1, None], [1, 2]]),
    "prompts: length is -2, which no run writes": lambda t: set_column(t, "prompts", "length", [-2, 7]),
    "prompts: stop is 'bored', which no run writes": lambda t: set_column(t, "prompts", "stop", ["length", "bored"]),
    "prompts: prompt is 1, which no run writes": lambda t: set_column(t, "prompts", "prompt", [1, 1]),
    "prompts: meta of prompt 1 is '{', which": lambda t: set_column(t, "prompts", "meta", ["{}", "{"]),
    r"prompts: meta of prompt 0 is '\[\]'": lambda t: set_column(t, "prompts", "meta", ["[]", "{}"]),
    r"prompts: messages of prompt 0 is '\[\[": lambda t: set_column(t, "prompts", "messages", ["[" * 100_000, None]),
    "tokens: has 5 rows, and its prompts have 6 steps": lambda t: set_column(t, "prompts", "length", [2, 4]),
    "tokens: prompt is 0 in row 1": lambda t: set_column(t, "prompts", "length", [1, 4]),
    "tokens: lacks a value of the column step": lambda t: set_column(t, "tokens", "step", [0, None, 0, 1, 2]),
    "tokens: step is 5 in row 1, where its run has 1": lambda t: set_column(t, "tokens", "step", [0, 5, 0, 1, 2]),
    "tokens: has the column entropy as string": lambda t: set_column(t, "tokens", "entropy", ["a"] * 5, pa.string()),
    "tokens: has 0 columns token_text": lambda t: t.update(tokens=t["tokens"].drop_columns("token_text")),
    "tokens: has 0 columns renyi_2": lambda t: t.update(tokens=t["tokens"].drop_columns("renyi_2")),
    "layers: has 0 rows": lambda t: t.update(layers=t["layers"].slice(0, 0)),
    r"layers: sink_mass has a list of 3 values instead of 2": lambda t: set_column(
        t,
        "layers",
        "sink_mass",
        [[0.1] * (2 + row // 19) if row % 4 else None for row in range(20)],
    ),
    "layers: has 2 columns lens_kl instead of one": lambda t: t.update(
        layers=t["layers"].append_column("lens_kl", t["layers"]["lens_kl"])
    ),
}


@pytest.mark.parametrize("message", TABLE_DAMAGES)
def test_tables_that_no_run_writes_are_refused(message):
    tables = to_tables([(0, make_row(1, 2)), (1, make_row(2, 3))], INFO)
    from_tables(tables, INFO)
    TABLE_DAMAGES[message](tables)
    with pytest.raises(StoreError, match=message):
        from_tables(tables, INFO)


def test_recorded_groups_need_their_metrics():
    tables = to_tables([(0, make_row(1, 2))], INFO)
    tables["layers"] = tables["layers"].drop_columns("hdi")
    with pytest.raises(StoreError, match="layers: has 0 columns hdi instead of one"):
        from_tables(tables, INFO | {"probes": ["dispersion"]})


def test_scans_of_object_stores_verify_footers(run):
    remote = fsspec.filesystem("memory")
    remote.put(str(run), "/damaged", recursive=True)
    trace = open_trace("memory://damaged")
    assert trace.tokens.to_table().num_rows == 36
    path = "/damaged/tokens/part-00000.parquet"
    content = bytearray(remote.cat_file(path))
    content[-900] ^= 1
    remote.pipe_file(path, bytes(content))
    with pytest.raises(StoreError, match=r"part-00000.parquet: cannot be read \(its footer does not match"):
        _ = open_trace("memory://damaged").tokens
    remote.rm("/damaged", recursive=True)


def test_a_part_is_verified_once(parts, monkeypatch):
    checked = []
    monkeypatch.setattr(
        reader, "check_part", lambda *args, **options: checked.append(0) or check_part(*args, **options)
    )
    trace = open_trace(parts)
    for _ in range(2):
        assert trace.tokens.count_rows() == trace.filter(prompts=range(3)).tokens.count_rows() == 6
    assert len(checked) == 3


@pytest.fixture
def old(tmp_path):
    """Copy a run of format 1."""
    return shutil.copytree(FORMAT_1, tmp_path / "old")


def test_a_run_of_format_1_resumes_in_its_format(old):
    (stored,) = open_trace(old).runs
    row = open_trace(old).rows[1]
    for table in TABLES:
        part(old, table).unlink()
    info = {name: value for name, value in stored.info.items() if name != "complete"}
    options = {"resume": True, "metrics_version": stored.metrics_version}
    with TraceWriter(old, info, stored.config, **options) as writer:
        assert writer.done == set()
        writer.write([(0, row)])
    assert json.loads((old / "run.json").read_text()).keys() == json.loads((FORMAT_1 / "run.json").read_text()).keys()
    (again,) = open_trace(old).runs
    assert again.id is None and again.info == stored.info
    assert_same_row(open_trace(old).rows[0], row)


def test_a_copied_part_without_hashes_is_refused(old):
    for table in TABLES:
        shutil.copy(part(old, table), part(old, table, 7))
    for read in (lambda trace: trace.rows[0], lambda trace: trace.tokens, lambda trace: trace.texts):
        with pytest.raises(StoreError, match=r"part-00007.parquet: prompt 0 is also in part-00000.parquet; delete one"):
            read(open_trace(old))


@pytest.mark.parametrize(
    ("table", "column", "read"),
    [
        ("prompts", "completion", lambda trace: trace.texts),
        ("prompts", "length", lambda trace: trace.lengths),
        ("tokens", "entropy", lambda trace: trace.tokens),
        ("layers", "lens_kl", lambda trace: trace.layers),
        ("layers", "lens_kl", lambda trace: trace.rows[0]),
    ],
)
def test_a_lost_column_of_an_old_run_is_refused(old, table, column, read):
    path = part(old, table)
    pq.write_table(pq.read_table(path).drop_columns(column), path)
    with pytest.raises(StoreError, match=rf"{table}/part-00000.parquet: (has 0|lacks the) columns? {column}"):
        read(open_trace(old))


def test_rows_that_could_not_be_read_back_are_not_written(tmp_path):
    with pytest.raises(StoreError, match="prompts: stop is 'bored', which no run writes; correct the rows"):
        Trace([dataclasses.replace(make_row(0, 2), stop="bored")], INFO).save(tmp_path / "a")
    with pytest.raises(StoreError, match=r"run.json: info.heads is 0; .* 1; correct Trace.info"):
        Trace([make_row(0, 2)], INFO | {"heads": 0}).save(tmp_path / "b")
