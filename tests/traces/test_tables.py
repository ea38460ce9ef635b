"""The stored tables, read by other tools without jaxtrace."""

import json

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from jaxtrace.schema import METRICS
from jaxtrace.traces.trace import Trace
from tests.traces.rows import INFO, make_row, make_trace


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    directory = tmp_path_factory.mktemp("trace")
    trace = make_trace()
    trace.save(directory)
    (directory / "tokens" / ".part-00001.parquet.tmp").write_bytes(b"half a part")
    return directory, trace


def test_pandas_reads_the_tokens_table(stored):
    directory, trace = stored
    tokens = pd.read_parquet(directory / "tokens")
    assert list(tokens)[:5] == ["prompt", "step", "position", "token", "token_text"]
    assert [name for name in tokens if name.startswith("renyi")] == [
        "renyi_0.5",
        "renyi_2",
        "renyi_5",
        "renyi_inf",
    ]
    assert len(tokens) == sum(row.length for row in trace.rows)
    selected = tokens[tokens.prompt == 3]
    row = trace.rows[3]
    assert selected.step.tolist() == list(range(6))
    assert selected.position.tolist() == [len(row.prompt_tokens) - 1 + step for step in range(6)]
    assert selected.token_text.tolist() == list(row.pieces)
    np.testing.assert_array_equal(selected["renyi_inf"], row.metrics["renyi"][:, 3])
    np.testing.assert_allclose(tokens.entropy.mean(), np.nanmean(_concatenated(trace, "entropy")), rtol=1e-6)


def test_pandas_reads_the_layers_table(stored):
    directory, trace = stored
    layers = pd.read_parquet(directory / "layers")
    assert len(layers) == sum(row.length for row in trace.rows) * 4
    row = trace.rows[3]
    selected = layers[(layers.prompt == 3) & (layers.step == 5)].set_index("layer")
    assert selected.index.tolist() == [0, 1, 2, 3]
    np.testing.assert_array_equal(selected.lens_kl, [np.nan, *row.metrics["lens_kl"][5]])
    np.testing.assert_array_equal(selected.hidden_norm, row.metrics["hidden_norm"][5])
    assert selected.attention_entropy[0] is None
    np.testing.assert_array_equal(selected.attention_entropy[2], row.metrics["attention_entropy"][5, 1])
    top1 = layers.lens_top1.dropna()
    assert len(top1) == (_concatenated(trace, "lens_top1") >= 0).sum()


def test_pandas_reads_the_prompts_table(stored):
    directory, trace = stored
    prompts = pd.read_parquet(directory / "prompts")
    assert prompts.prompt.tolist() == [0, 1, 2, 3, 4]
    assert prompts.length.tolist() == [4, 1, 0, 6, 3]
    assert prompts.text.notna().tolist() == [False, True, True, False, True]
    assert json.loads(prompts.meta[4]) == {"level": 4, "of": ["a", None]}
    assert prompts.tokens[4].tolist() == trace.rows[4].prompt_tokens.tolist()


def test_fields_have_definitions_and_narrow_types(stored):
    directory, _ = stored
    schema = pq.read_schema(directory / "layers" / "part-00000.parquet")
    assert schema.field("lens_kl").metadata[b"units"] == b"nats"
    assert schema.field("lens_kl").metadata[b"definition"].decode() == METRICS["lens_kl"].definition
    types = {field.name: str(field.type) for field in schema}
    assert (types["layer"], types["lens_kl"], types["lens_top1"]) == ("int32", "float", "int32")
    assert types["sink_mass"].startswith("list<") and "float" in types["sink_mass"]
    for table in ("tokens", "layers", "prompts"):
        part = pq.ParquetFile(directory / table / "part-00000.parquet")
        assert part.metadata.row_group(0).column(0).compression == "ZSTD"
        assert all(b"definition" in field.metadata for field in part.schema_arrow)
        part.close()


def test_run_json_is_strict_json(stored):
    directory, _ = stored
    run = json.loads((directory / "run.json").read_text(encoding="utf-8"), parse_constant=pytest.fail)
    assert run["format"] == 2 and run["complete"] is True and run["config"] is None
    assert run["info"] == INFO | {"alphas": [0.5, 2.0, 5.0, "inf"]}
    assert run["created"].endswith("+00:00")


def test_scored_positions_start_at_zero(tmp_path):
    Trace([make_row(2, 5)], INFO | {"mode": "score"}).save(tmp_path)
    assert pd.read_parquet(tmp_path / "tokens").position.tolist() == [0, 1, 2, 3, 4]


def test_layers_table_without_layer_metrics_is_empty(tmp_path):
    make_trace(("output",)).save(tmp_path)
    assert pd.read_parquet(tmp_path / "layers").empty


def test_polars_reads_the_layers_table(stored):
    polars = pytest.importorskip("polars")
    directory, trace = stored
    layers = polars.read_parquet(directory / "layers" / "*.parquet")
    want = np.nanmean(_concatenated(trace, "attention_entropy"))
    got = layers.select(polars.col("attention_entropy").explode(empty_as_null=False).mean()).item()
    np.testing.assert_allclose(got, want, rtol=1e-5)


def test_duckdb_joins_the_tables(stored):
    duckdb = pytest.importorskip("duckdb")
    directory, trace = stored
    with duckdb.connect() as base:
        rows = base.sql(
            f"""
            select p.id, count(*) as steps, avg(t.entropy) as entropy, avg(t."renyi_0.5")
            from '{directory}/tokens/*.parquet' t join '{directory}/prompts/*.parquet' p using (prompt)
            group by p.id order by p.id
            """
        ).fetchall()
        heads = base.sql(f"select avg(h) from (select unnest(sink_mass) h from '{directory}/layers/*.parquet')")
        np.testing.assert_allclose(heads.fetchall()[0][0], np.nanmean(_concatenated(trace, "sink_mass")), rtol=1e-5)
    assert [(name, steps) for name, steps, *_ in rows] == [
        ("made-0000", 4),
        ("made-0001", 1),
        ("made-0003", 6),
        ("made-0004", 3),
    ]
    np.testing.assert_allclose(rows[2][2], np.nanmean(trace.rows[3].metrics["entropy"]), rtol=1e-5)


def _concatenated(trace, name):
    return np.concatenate([row.metrics[name] for row in trace.rows])
