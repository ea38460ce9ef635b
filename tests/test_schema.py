"""One `Metric` entry is enough: columns, labels, figures, tags, features and tables follow from it."""

import dataclasses
import sys

import numpy as np
import pytest

from jaxtrace import schema
from jaxtrace.figures.columns import token_columns
from jaxtrace.figures.page import render
from jaxtrace.figures.plots import figures, lens_profile
from jaxtrace.figures.summary import summary
from jaxtrace.observing.tensorboard import Board
from jaxtrace.schema import Metric, changed_between, definition_note, feature_names
from jaxtrace.studies.confidence.features import probes_of, token_features
from jaxtrace.traces import open_trace
from scripts import doc_tables
from tests.figures.traces import row, trace
from tests.observing.test_tensorboard import values

NEW = Metric(
    *("lens_margin", ("layer",), "lens", "nats", "ln of the lens's top-1 over top-2 probability", "lens margin"),
    column=3,
    scale="sequential",
    plots=("lens_profile",),
    tensorboard=("scalar", "histogram"),
    feature=True,
)


@pytest.fixture
def traced(rng, monkeypatch):
    """A trace that holds a metric of which only the schema knows."""
    monkeypatch.setitem(schema.METRICS, NEW.name, NEW)
    monkeypatch.setitem(schema.QUANTITIES, NEW.name, NEW)
    return trace([row(rng, ["a", "b", "c"])])


def test_a_new_metric_is_a_column_of_page_and_summary(traced):
    one = traced.rows[0]
    np.testing.assert_allclose(token_columns(one, (1, 2, 3))["lens_margin"], one.metrics["lens_margin"].mean(1))
    assert "mean lens margin" in dict(summary(traced))
    assert '<option value="lens_margin">mean lens margin</option>' in render(traced)


def test_a_new_metric_is_drawn_with_its_label_and_unit(traced):
    ds = traced.to_xarray()
    panel = lens_profile(ds).axes[-1]
    assert (panel.get_title(loc="left"), panel.get_ylabel()) == ("Lens margin", "nats")
    assert "lens_profile" in figures(ds[["lens_margin"]])


def test_a_new_metric_has_tensorboard_tags(traced, tmp_path):
    with Board(tmp_path, range(1, 7)) as board:
        board.on_rows([*enumerate(traced.rows)])
    assert {"lens/lens_margin", "lens_margin/layer_06"} <= values(tmp_path).keys()


def test_a_new_metric_is_a_feature(traced):
    features = token_features(traced.rows[0], range(1, 7))
    assert "lens_margin.late" in features and probes_of(["lens_margin.late"]) == ["lens"]


def test_a_new_metric_is_a_parquet_column(traced, tmp_path):
    traced.save(tmp_path)
    column = open_trace(tmp_path).layers.schema.field("lens_margin")
    assert column.metadata[b"definition"].decode() == NEW.definition
    np.testing.assert_array_equal(
        open_trace(tmp_path).rows[0].metrics["lens_margin"], traced.rows[0].metrics["lens_margin"]
    )


def test_a_new_metric_makes_the_tables_stale(traced, tmp_path, monkeypatch, capsys):
    (tmp_path / "docs").mkdir()
    for page in (doc_tables.ROOT / "README.md", *(doc_tables.ROOT / "docs").glob("*.md")):
        (tmp_path / page.relative_to(doc_tables.ROOT)).write_bytes(page.read_bytes())
    monkeypatch.setattr(doc_tables, "ROOT", tmp_path)
    monkeypatch.setattr(sys, "argv", ["doc_tables.py", "--check"])
    line = "| `lens_margin` | step, layer | lens | nats | ln of the lens's top-1 over top-2 probability |"
    assert doc_tables.main() == 1
    assert f"\n+{line}\n" in capsys.readouterr().out
    assert line not in (tmp_path / "README.md").read_text()
    monkeypatch.setattr(sys, "argv", ["doc_tables.py"])
    assert doc_tables.main() == 0
    assert line in (tmp_path / "README.md").read_text() and not doc_tables.stale_pages()


def test_page_columns_keep_their_order():
    assert [*schema.token_column_metrics()] == [
        *("confidence", "entropy", "varentropy", "surprisal", "logprob", "top1_prob", "top1_top2_gap"),
        *("self_certainty", "fisher_rao", "top_k_mass"),
        *("attention_entropy", "attention_entropy_normalized", "sink_mass"),
        *("attention_self", "attention_prompt_mass", "learned_sink_mass", "hdi", "head_jsd"),
        *("router_entropy", "router_top_mass", "prediction_depth", "quadrant"),
    ]


def test_features_keep_their_order():
    assert feature_names() == (
        *("entropy", "varentropy", "top1_prob", "top1_top2_gap", "self_certainty", "fisher_rao"),
        *("surprisal", "surprise_z"),
        *("attention_entropy_normalized", "sink_mass"),
        *("attention_self", "attention_max", "learned_sink_mass", "hdi", "head_jsd"),
        *("lens_entropy", "lens_varentropy", "lens_kl", "lens_top1_prob"),
        *("hidden_norm", "hidden_delta_layer", "hidden_delta_step", "hidden_cosine_layer"),
        *("router_entropy", "router_top_mass", "prediction_depth"),
    )


def test_every_change_of_a_definition_is_a_version_that_exists():
    for metric in (*schema.QUANTITIES.values(), *schema.DERIVED.values()):
        assert all(1 < version <= schema.METRICS_VERSION for version in metric.changed), metric.name


@pytest.mark.parametrize(
    ("versions", "changed"),
    [
        ((1, 1), ()),
        ((1, 2), ("attention_entropy_no_sink", "sink_mass")),
        ((2, 3), ("logprob", "surprisal", "surprise_z")),
        ((4, 3), ("hdi",)),
        ((2, 4), ("logprob", "hdi", "surprisal", "surprise_z")),
        ((4, 5), ()),
    ],
)
def test_changes_between_versions_include_derived_columns(monkeypatch, versions, changed):
    for name, version in (("logprob", 3), ("hdi", 4)):
        monkeypatch.setitem(schema.QUANTITIES, name, dataclasses.replace(schema.QUANTITIES[name], changed=(version,)))
    assert changed_between(*versions) == changed
    assert (definition_note(versions) is None) == (not changed)
