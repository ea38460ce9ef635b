"""Datasets of many runs, on any file system, read in part by jaxtrace and other tools."""

import duckdb
import fsspec
import numpy as np
import pandas as pd
import polars as pl
import pyarrow.dataset as ds
import pytest

from jaxtrace.errors import StoreError
from jaxtrace.figures import summary_table
from jaxtrace.traces import TraceWriter, open_trace, partition_of
from jaxtrace.traces import reader as reader_module
from tests.traces.rows import INFO, assert_same_row, make_row

RUNS = [  # (partition keys, prompt numbers) of each run
    ({"model": "tiny/one", "task": "quiz", "run": "greedy-0"}, range(4)),
    ({"model": "tiny/one", "task": "story", "run": "greedy-0"}, range(2)),
    ({"model": "two", "task": "quiz", "run": "sample-1"}, range(3)),
]


def make(root, precision="float32"):
    """Write three runs, the last one interrupted."""
    for keys, numbers in RUNS:
        info = INFO | {"model": keys["model"]}
        writer = TraceWriter(root, info, {"seed": 1}, partition=partition_of(**keys), precision=precision)
        for number in numbers:
            writer.write([(number, make_row(number, 3))])
        if keys["model"] != "two":
            writer.close()
    return root


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return make(tmp_path_factory.mktemp("study"))


@pytest.fixture(params=["local", "file", "memory"])
def root(request, tmp_path):
    """Yield a root for each file system."""
    if request.param == "memory":
        yield "memory://study"
        fsspec.filesystem("memory").rm("/study", recursive=True)
    else:
        yield {"local": str(tmp_path / "study"), "file": f"file://{tmp_path}/study"}[request.param]


def test_every_run_is_read_back_from_every_file_system(root):
    trace = open_trace(make(root))
    assert [run.keys for run in trace.runs] == [keys for keys, _ in RUNS]
    assert [run.info["complete"] for run in trace.runs] == [True, True, False]
    assert [run.config for run in trace.runs] == [{"seed": 1}] * 3
    assert len(trace.rows) == 9
    want = [make_row(number, 3) for _, numbers in RUNS for number in numbers]
    for got, row in zip(trace.rows, want, strict=True):
        assert_same_row(got, row)
    assert trace.texts == [row.text for row in want]
    assert trace.tokens.to_table(columns=["entropy"]).num_rows == 27


def test_run_resumes_on_every_file_system(root):
    writer = TraceWriter(root, INFO)
    writer.write([(0, make_row(0, 3))])
    writer.write([(1, make_row(1, 3))])
    cut = fsspec.open(f"{root}/tokens/part-00001.parquet").fs
    path = cut._strip_protocol(f"{root}/tokens/part-00001.parquet")
    cut.pipe_file(path, cut.cat_file(path)[:-9])
    writer.release()
    with pytest.raises(StoreError, match="already holds a run"):
        TraceWriter(root, INFO)
    with TraceWriter(root, INFO, resume=True) as writer:
        assert writer.done == {0}
        writer.write([(1, make_row(1, 3))])
    trace = open_trace(root)
    assert trace.info["complete"] is True
    assert_same_row(trace.rows[1], make_row(1, 3))


def test_info_holds_the_entries_on_which_runs_agree(dataset):
    trace = open_trace(dataset)
    assert trace.info == {key: INFO[key] for key in INFO if key != "model"} | {"complete": False}
    one = trace.filter(model="tiny/one")
    assert one.info == INFO | {"model": "tiny/one", "complete": True}
    assert one.to_xarray().sizes["prompt"] == 6


def test_filters_select_runs_and_prompts(dataset):
    trace = open_trace(dataset)
    assert [len(trace.filter(task=task).rows) for task in ("quiz", "story", ["quiz", "story"])] == [7, 2, 9]
    some = trace.filter(task="quiz", prompts=[3, 1])
    assert [row.prompt.id for row in some.rows] == ["made-0001", "made-0003", "made-0001"]
    assert some.prompts.to_table()["prompt"].to_pylist() == [1, 3, 1]
    assert set(some.tokens.to_table()["model"].to_pylist()) == {"tiny/one", "two"}
    assert some.filter(prompts=range(2)).tokens.count_rows() == 6
    assert some.filter(prompts=3).texts == some.filter(prompts=np.int64(3)).texts == [make_row(3, 3).text]
    assert list(trace.filter(prompts=()).rows) == []


def test_filter_without_a_match_names_the_choices(dataset):
    trace = open_trace(dataset)
    with pytest.raises(StoreError, match="no run with task=poem; there are: quiz, story"):
        trace.filter(task="poem")
    with pytest.raises(StoreError, match="no run with colour=red; no run has such a key"):
        trace.filter(colour="red")


def test_runs_of_different_dims_make_no_array(tmp_path):
    TraceWriter(tmp_path, INFO, partition="model=a").write([(0, make_row(0, 3))])
    TraceWriter(tmp_path, INFO | {"mode": "score"}, partition="model=b").write([(0, make_row(0, 3))])
    with pytest.raises(StoreError, match="the runs differ in mode; filter to those that agree"):
        open_trace(tmp_path).to_xarray()
    with pytest.raises(StoreError, match="the runs differ in mode"):
        summary_table(open_trace(tmp_path))
    with pytest.raises(StoreError, match="the runs differ in mode"):
        _ = open_trace(tmp_path).num_layers


def test_parts_are_read_on_access_only(dataset, monkeypatch):
    read, read_completely = [], reader_module.read_part

    def read_part(path, columns=None):
        read.append((path.path.removeprefix(f"{dataset}/"), columns))
        return read_completely(path, columns)

    monkeypatch.setattr(reader_module, "read_part", read_part)
    one = open_trace(dataset).filter(model="tiny/one", task="quiz", prompts=range(1, 3))
    assert read == []
    assert len(one.rows) == 2
    assert {columns and tuple(columns) for _, columns in read} == {("prompt",)}
    del read[:]
    for _ in range(2):
        assert one.rows[1].prompt.id == "made-0002"
    part = "model=tiny%2Fone/task=quiz/run=greedy-0/part-00002.parquet"
    assert read == [(f"{table}/{part}", None) for table in ("tokens", "layers", "prompts")]


def test_few_parts_stay_in_memory(tmp_path):
    writer = TraceWriter(tmp_path, INFO)
    for number in range(2 * reader_module.CACHED_PARTS):
        writer.write([(number, make_row(number, 1))])
    rows = open_trace(tmp_path).rows
    assert [row.prompt.id for row in rows] == [f"made-{i:04d}" for i in range(2 * reader_module.CACHED_PARTS)]
    assert rows._part.cache_info().currsize == reader_module.CACHED_PARTS


def test_filters_on_columns_are_pushed_down(dataset):
    tokens = open_trace(dataset).tokens
    table = tokens.to_table(columns=["entropy", "run"], filter=(ds.field("step") == 1) & (ds.field("model") == "two"))
    assert table["run"].to_pylist() == ["sample-1"] * 3
    want = [make_row(number, 3).metrics["entropy"][1] for number in range(3)]
    np.testing.assert_array_equal(table["entropy"].to_numpy(), np.array(want))


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_other_tools_read_the_dataset(tmp_path, precision):
    make(tmp_path, precision)
    want = {}
    for keys, numbers in RUNS:
        values = np.concatenate([make_row(number, 3).metrics["entropy"] for number in numbers])
        want.setdefault(keys["model"], []).extend(values)
    want = {model: np.nanmean(values) for model, values in want.items()}

    tokens = pd.read_parquet(tmp_path / "tokens")
    in_pandas = tokens.groupby("model", observed=True).entropy.mean().to_dict()
    lazy = pl.scan_parquet(tmp_path / "tokens/**/*.parquet", hive_partitioning=True)
    in_polars = dict(lazy.group_by("model").agg(pl.col("entropy").mean()).collect().iter_rows())
    with duckdb.connect() as base:
        of = f"read_parquet('{tmp_path}/tokens/**/*.parquet', hive_partitioning=true)"
        in_duckdb = dict(base.sql(f"select model, avg(entropy) from {of} group by model").fetchall())
        lists = f"select unnest(sink_mass) mass from '{tmp_path}/layers/**/*.parquet'"
        heads = base.sql(f"select sum(mass) from ({lists})").fetchall()[0][0]
    for means in (in_pandas, in_polars, in_duckdb):
        assert means == pytest.approx(want, rel=1e-6 if precision == "float32" else 1e-3)
    layers = pl.scan_parquet(tmp_path / "layers/**/*.parquet", hive_partitioning=True)
    assert layers.select(pl.col("sink_mass").list.sum().sum()).collect().item() == pytest.approx(heads, rel=1e-4)
    assert len(pd.read_parquet(tmp_path / "prompts")) == 9


def test_partition_keys_invert_partition_of():
    keys = {"model": "meta-llama/Llama-3.2-1B", "task": "a b", "run": "α=1"}
    assert partition_of(**keys).count("/") == 2
    assert reader_module.partition_keys(partition_of(**keys)) == keys
