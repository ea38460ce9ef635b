"""Reductions over layers exclude the layers without values, and say over how many layers they are."""

import dataclasses
import functools
import json
import re

import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

import jaxtrace as jt
from jaxtrace.engine.measure import StepTrace
from jaxtrace.engine.samplers.quadrants import measures_of
from jaxtrace.errors import StudyError
from jaxtrace.figures.columns import token_columns
from jaxtrace.figures.page import _row as page_row
from jaxtrace.figures.page import render
from jaxtrace.figures.plots import figures
from jaxtrace.figures.summary import summary, trace_columns
from jaxtrace.figures.theme import LIGHT, point_marker
from jaxtrace.model import _layers_without
from jaxtrace.models.config import DeltaNet, Experts, LayerKind
from jaxtrace.observing import tensorboard
from jaxtrace.schema import METRICS
from jaxtrace.studies.confidence.features import feature_tables
from jaxtrace.studies.dynamics.compute import dynamics
from jaxtrace.studies.dynamics.settings import DynamicsConfig
from jaxtrace.studies.lens.compute import lens
from jaxtrace.studies.lens.profiles import gather_profiles
from jaxtrace.studies.lens.settings import LensConfig
from jaxtrace.studies.patterns.compute import patterns
from jaxtrace.studies.patterns.settings import PatternsConfig
from jaxtrace.traces import open_trace
from jaxtrace.traces.trace import Trace
from tests.engine.conftest import CONFIG
from tests.figures.traces import row, trace
from tests.observing.test_tensorboard import values as events_of

pytestmark = pytest.mark.filterwarnings("error::RuntimeWarning")

LAYERS, ABSENT = 6, (2, 5)
KEPT = tuple(layer for layer in range(1, LAYERS + 1) if layer not in ABSENT)
TEXT = "4 of 6 layers"
ATTENTION = [name for name, metric in METRICS.items() if metric.group in ("attention", "dispersion")]


@dataclasses.dataclass(frozen=True)
class KeptLayers(Trace):
    """A trace whose rows have the kept layers alone, under their own numbers."""

    @property
    def traced_layers(self):
        return KEPT

    def layers_of(self, metric):
        return KEPT


def rows(count=8):
    rng = np.random.default_rng(0)
    about = [{"id": f"p{i}", "ids": range(i, i + 4), "meta": {"kind": "ab"[i % 2]}} for i in range(count)]
    return [row(rng, ["a"] * (7 + i), layers=LAYERS, **about[i]) for i in range(count)]


def of_layers(one, change, names=METRICS):
    """Return the row with `change(values, indices of ABSENT)` in place of each metric of layers."""
    changed = {}
    for name in one.metrics.keys() & set(names):
        if "layer" in METRICS[name].dims:
            changed[name] = change(one.metrics[name].copy(), np.array(ABSENT) - METRICS[name].first_layer)
    return dataclasses.replace(one, metrics=one.metrics | changed)


def emptied(values, layers):
    values[:, layers] = -1 if values.dtype == np.int32 else np.nan
    return values


def removed(values, layers):
    return np.delete(values, layers, axis=1)


def both():
    """Return the trace with empty layers, and the one without them."""
    masked = trace([of_layers(one, emptied) for one in rows()], layers=LAYERS)
    return masked, KeptLayers([of_layers(one, removed) for one in rows()], masked.info)


STUDIES = {
    "patterns": lambda one: patterns({"tiny": one}, PatternsConfig(by="task", resamples=100)),
    "dynamics": lambda one: dynamics({"tiny": one}, DynamicsConfig(resamples=100)),
    "dynamics, jsd": lambda one: dynamics({"tiny": one}, DynamicsConfig(hdi="jsd", resamples=100)),
    "lens of heads": lambda one: lens_of(one, "sink_mass"),
    "lens of the stream": lambda one: lens_of(one, "hidden_norm"),
    "lens of predictions": lambda one: lens_of(one, "lens_entropy"),
}


def lens_of(one, metric):
    return lens({"tiny": one}, LensConfig(by="task", metric=(metric,), folds=2, neighbours=(1,)))


@functools.cache
def studied(name):
    """Return a study of the trace with empty layers."""
    return STUDIES[name](both()[0])


def tables(result):
    """Return the tables of a study without the rows of the empty layers."""
    frames = {}
    for name, table in result.tables.items():
        kept = table.frame[~table.frame["layer"].isin(ABSENT)] if "layer" in table.frame else table.frame
        frames[name] = kept.reset_index(drop=True)
    return frames


def of_figures(one):
    drawn = {}
    for name, figure in figures(one.to_xarray()).items():
        for i, axes in enumerate(figure.axes):
            lines = [np.array(line.get_data(), float) for line in axes.lines if len(line.get_xdata())]
            drawn |= {(name, i, j): line[:, np.isfinite(line[1])] for j, line in enumerate(lines)}
            for image in axes.images:
                colours = np.ma.filled(np.ma.asarray(image.get_array(), float), np.nan)
                drawn[name, i, "map"] = colours[np.isfinite(colours).any(1)]
    return drawn


def of_sampler(one):
    step = [{name: values[0] for name, values in of_row.metrics.items()} for of_row in one.rows]
    fields = {name: jnp.stack([metrics[name] for metrics in step]) for name in step[0]}
    return {name: np.asarray(values) for name, values in measures_of(StepTrace(**fields), 2.0).items()}


def of_maps(one):
    means = tensorboard.HeadMeans(one.rows[0].metrics["sink_mass"].shape[1:])
    for of_row in one.rows:
        means.add(of_row.metrics["sink_mass"])
    return {"map": means.value[np.isfinite(means.value).all(1)]}


def of_confidence(one):
    tables = feature_tables({"tiny": one})
    return {"answers": tables.answers, "tokens": tables.tokens}


def of_summary(one):
    return {re.sub(r" \([^()]* layers\)", "", label): np.array(value) for label, value in summary(one)}


REDUCTIONS = {
    "token columns": lambda one: {
        (i, name): values
        for i, of_row in enumerate(one.rows)
        for name, values in token_columns(of_row, one.traced_layers).items()
    },
    "trace columns": lambda one: {name: column.values for name, column in trace_columns(one).items()},
    "summary": of_summary,
    "figures": of_figures,
    "TensorBoard maps": of_maps,
    "entropix": of_sampler,
    "confidence": of_confidence,
}


@pytest.mark.parametrize("reduction", REDUCTIONS.values(), ids=REDUCTIONS)
def test_reductions_equal_those_of_the_trace_without_the_layers(reduction):
    assert_same(*map(reduction, both()))


LONG = [pytest.param(study, marks=pytest.mark.nightly) for study in ("dynamics, jsd", "lens of predictions")]


@pytest.mark.parametrize("study", ["patterns", "dynamics", "lens of heads", "lens of the stream", *LONG])
def test_studies_equal_those_of_the_trace_without_the_layers(study):
    assert_same(tables(studied(study)), tables(STUDIES[study](both()[1])))


def assert_same(got, want):
    assert got.keys() == want.keys() and want
    for name, expected in want.items():
        if isinstance(expected, pd.DataFrame):
            pd.testing.assert_frame_equal(got[name], expected)
        elif expected.dtype.kind == "U":
            assert got[name] == expected
        else:
            np.testing.assert_allclose(got[name], expected, rtol=1e-6, err_msg=str(name))


def test_columns_and_notes_say_over_how_many_layers_they_are():
    masked = trace([of_layers(one, emptied, ATTENTION) for one in rows()], layers=LAYERS)
    labels = [label for label, _ in summary(masked)]
    assert f"mean sink mass ({TEXT})" in labels and "prediction depth" in labels
    assert not any("layers)" in label for label, _ in summary(trace(rows(), layers=LAYERS)))
    notes = [studied(study).notes for study in ("patterns", "dynamics", "lens of heads")]
    for of_study in (*notes, feature_tables({"tiny": masked}).notes):
        assert sum(f"means over {TEXT}; the others have no values" in note for note in of_study) == 1
    of_heads = row(np.random.default_rng(0), ["a"] * 3, layers=LAYERS, groups=("dispersion",))
    assert f'"mean head divergence ({TEXT})"' in render(trace([of_layers(of_heads, emptied)]))
    strided = dataclasses.replace(masked, info=masked.info | {"layers": 12, "layer_stride": 2})
    assert "mean sink mass (4 of 6 recorded layers)" in [label for label, _ in summary(strided)]


def test_steps_without_a_lens_have_no_part_in_means():
    def at_every_third(one):
        """Return the row whose lens was taken at every third step."""
        left = np.arange(one.length) % 3 != 0
        lens = {name: values.copy() for name, values in one.metrics.items() if METRICS[name].group == "lens"}
        for values in lens.values():
            values[left] = -1 if values.dtype == np.int32 else np.nan
        return dataclasses.replace(one, metrics=one.metrics | lens)

    def third_steps(one):
        return dataclasses.replace(one, metrics={name: values[::3] for name, values in one.metrics.items()})

    sparse = trace([at_every_third(one) for one in rows()], layers=LAYERS, lens_every=3)
    kept = trace([third_steps(one) for one in rows()], layers=LAYERS)
    for metric in ("lens_entropy", "lens_kl"):
        found, want = (gather_profiles({"t": of}, metric, task_of, group=task_of) for of in (sparse, kept))
        np.testing.assert_allclose(np.stack(found.values), np.stack(want.values))
        depths = [profiles.answers["prediction_depth"].to_numpy() for profiles in (found, want)]
        np.testing.assert_allclose(*depths)
        assert [*found.answers["steps"]] == [one.length for one in sparse.rows] and not found.excluded
    columns = [trace_columns(of) for of in (sparse, kept)]
    np.testing.assert_array_equal(*(column["prediction_depth"].values for column in columns))
    names = [name for name in feature_tables({"t": kept}).answers if name.startswith("lens_")]
    frames = [feature_tables({"t": of}).answers[names] for of in (sparse, kept)]
    pd.testing.assert_frame_equal(*frames)
    lines = [figures(of.to_xarray())["lens_profile"].axes[0].lines[0].get_ydata() for of in (sparse, kept)]
    np.testing.assert_allclose(*lines, rtol=1e-6)
    lens = page_row(sparse.rows[0], [], "generate", range(1, LAYERS + 1), None)["lens"]
    assert [step is not None for step in lens] == [i % 3 == 0 for i in range(len(lens))]
    with pytest.raises(StudyError, match="8 with values at fewer than 6 steps"):
        gather_profiles({"t": sparse}, "lens_kl", task_of, group=task_of, windows=6)


def task_of(_, one):
    return one.prompt.meta["kind"]


def test_rows_that_skip_other_layers_count_their_own():
    one, *others = rows()
    mixed = trace([of_layers(one, emptied, ATTENTION), *others], layers=LAYERS)
    assert "mean sink mass (4 to 6 of 6 layers)" in [label for label, _ in summary(mixed)]
    assert np.isfinite(trace_columns(mixed)["sink_mass"].values).all()
    notes = lens_of(mixed, "sink_mass").notes
    assert any("answers with values in different layers: profiles are interpolated" in note for note in notes)


def test_a_fault_at_one_step_stays_in_the_mean():
    one = of_layers(rows(1)[0], emptied, ATTENTION)
    one.metrics["attention_entropy"][3, 2, 1] = np.nan
    column = token_columns(one, range(1, LAYERS + 1))["attention_entropy"]
    np.testing.assert_array_equal(np.isnan(column), np.arange(one.length) == 3)
    tokens = dynamics({"tiny": trace([one] * 2)}, DynamicsConfig(resamples=100)).tables["means"].frame
    counts = tokens.set_index("metric")["tokens"]
    assert counts["attention_entropy"] == counts["hdi"] == 2 * (one.length - 1) and counts["entropy"] == 2 * one.length


@pytest.mark.parametrize("group", ["output", "none"])
def test_a_row_without_finite_logits_has_no_absent_layer(group):
    one = rows(1)[0]
    metrics = {name: values[:1].copy() for name, values in one.metrics.items()}
    metrics["token"][:] = -1
    metrics["attention_entropy"][:, 2:] = np.nan
    metrics["entropy"][:] = np.nan
    if group == "none":
        metrics = {name: metrics[name] for name in ("token", "attention_entropy")}
    broken = dataclasses.replace(one, metrics=metrics, pieces=("",), stop="not_finite")
    assert np.isnan(token_columns(broken, range(1, LAYERS + 1))["attention_entropy"]).all()


def test_metrics_without_a_value_in_any_layer_have_no_mean():
    def all_empty(values, _):
        return np.full_like(values, np.nan)

    none = trace([of_layers(one, all_empty, ATTENTION) for one in rows()], layers=LAYERS)
    columns = token_columns(none.rows[0], none.traced_layers)
    assert all(np.isnan(columns[name]).all() for name in ATTENTION if name in columns)
    assert not trace_columns(none).keys() & set(ATTENTION)
    assert "no finite values" in [text.get_text() for text in figures(none.to_xarray())["attention_map"].axes[0].texts]
    result = dynamics({"tiny": none}, DynamicsConfig(resamples=100))
    means = result.tables["means"].frame.set_index("metric")["mean"]
    assert np.isnan(means["attention_entropy"]) and np.isfinite(means["hidden_norm"])
    pairs = result.tables["correlations"].frame.set_index(["x", "y"])["r"]
    assert np.isnan(pairs["entropy", "hdi"]) and np.isfinite(pairs["entropy", "hidden_norm"])
    for picture in result.pictures.values():
        picture.draw(LIGHT)
    assert np.isnan(feature_tables({"tiny": none}).token_features["sink_mass.late"]).all()
    with pytest.raises(StudyError, match="8 without a layer that has values"):
        lens_of(none, "sink_mass")
    compared = patterns({"tiny": none}, PatternsConfig(by="task", resamples=100)).tables["comparisons"].frame
    assert not {*compared["metric"]} & {*ATTENTION}


def test_figures_leave_gaps_and_name_them():
    masked, _ = both()
    drawn = figures(masked.to_xarray())
    for name in ("layer_profile", "lens_profile"):
        axes = drawn[name].axes[-1]
        assert np.isnan(axes.lines[0].get_ydata()[np.array(ABSENT) - 1]).all()
        assert "gap: 2 of 6 layers have no values" in [text.get_text() for text in axes.get_legend().get_texts()]
    (text,) = drawn["attention_map"].legends[0].get_texts()
    assert text.get_text() == "blank: 2 of 6 layers have no values"
    for study, picture in (
        ("patterns", "layers"),
        ("patterns", "heads"),
        ("dynamics", "layer_profiles"),
        ("lens of heads", "profiles"),
    ):
        axes = studied(study).pictures[picture].draw(LIGHT).axes[0]
        assert np.isnan(axes.lines[0].get_ydata()).sum() == len(ABSENT), picture
        assert "gap: 2 of 6 layers have no values" in [text.get_text() for text in axes.get_legend().get_texts()]


def test_a_layer_between_gaps_is_drawn_as_a_dot_with_a_bar():
    def only_one(values, _):
        values[:, np.arange(values.shape[1]) != 3] = np.nan
        return values

    lone = trace([of_layers(one, only_one, ATTENTION) for one in rows()], layers=LAYERS)
    assert point_marker([np.nan, 1.0, np.nan]) and not point_marker([1.0, 2.0, np.nan, 3.0, 4.0])
    axes = figures(lone.to_xarray())["layer_profile"].axes[0]
    assert axes.lines[0].get_marker() == "o"
    (bar,) = axes.collections[-1].get_segments()
    assert bar[0, 0] == bar[1, 0] == 4 and bar[0, 1] < axes.lines[0].get_ydata()[3] < bar[1, 1]


def test_tensorboard_scalars_are_means_over_the_layers_with_values(tmp_path, monkeypatch):
    monkeypatch.setattr(tensorboard, "in_tensorboard", lambda kind: ("sink_mass",) if kind == "scalar" else ())
    masked = [of_layers(one, emptied) for one in rows()]
    with tensorboard.Board(tmp_path, range(1, LAYERS + 1)) as board:
        board.on_rows([*enumerate(masked)])
    ((_, value),) = events_of(tmp_path)["attention/sink_mass"]
    assert value.metadata.summary_description == f"mean over {TEXT}"
    kept = np.concatenate([of_layers(one, removed).metrics["sink_mass"].ravel() for one in rows()])
    np.testing.assert_allclose(value.simple_value, kept.mean(), rtol=1e-6)


NET = DeltaNet(key_heads=1, value_heads=2, key_dim=4, value_dim=4, conv=4)
PARTS = {
    "dense": ({}, {}),
    "hybrid": ({"pattern": (LayerKind(delta_net=NET), LayerKind())}, {"attention": [1, 3]}),
    "experts": (
        {"experts": Experts(4, 2, 8), "pattern": (LayerKind(dense=True),) + (LayerKind(),) * 3},
        {"experts": [1]},
    ),
}


@pytest.mark.parametrize(("changes", "without"), PARTS.values(), ids=PARTS)
def test_runs_record_the_layers_without_a_part(changes, without, tmp_path):
    config = dataclasses.replace(CONFIG, num_layers=4, **changes)
    assert _layers_without(config) == ({"layers_without": without} if without else {})
    trace(rows(1), layers=LAYERS, **_layers_without(config)).save(tmp_path / "run")
    stored = open_trace(tmp_path / "run")
    assert ("layers_without" in json.loads((tmp_path / "run" / "run.json").read_text())["info"]) == bool(without)
    lines = dict(summary(stored))
    assert [lines.get(f"layers without {part}") for part in without] == [f"{len(x)} of 6" for x in without.values()]


def test_entropix_is_refused_if_no_layer_that_it_reads_has_attention_weights():
    config = dataclasses.replace(CONFIG, pattern=(LayerKind(), LayerKind(delta_net=NET)), num_layers=2)
    sampler = jt.Entropix(layers="last")
    with pytest.raises(jt.ConfigError, match=r"^sampler: reads attention weights, and layer 2 has none; use another"):
        jt.init_state(config, {}, 1, 8, jt.Probes.none(), sampler=sampler)
    alone = dataclasses.replace(config, pattern=(LayerKind(delta_net=NET),))
    with pytest.raises(jt.ConfigError, match="the model has none"):
        jt.init_state(alone, {}, 1, 8, jt.Probes.none(), sampler=jt.Entropix())
