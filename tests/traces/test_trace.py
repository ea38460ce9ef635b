"""Labelled arrays of a trace: the dims of each metric, and the values of missing entries."""

import numpy as np
import pytest

from jaxtrace import Probes, Prompt, Row, Trace
from jaxtrace.schema import METRICS

RECORDED = {name: METRICS[name] for name in Probes.all().metrics if not METRICS[name].only}
STEP = ("prompt", "step")
DIMS = {
    (): ("token", "logprob", "entropy", "varentropy", "top1_prob", "top1_top2_gap"),
    ("alpha",): ("renyi",),
    ("layer", "head"): (
        "attention_entropy",
        "attention_varentropy",
        "attention_entropy_normalized",
        "attention_entropy_no_sink",
        "sink_mass",
    ),
    ("layer",): (
        "hdi",
        "head_jsd",
        "lens_entropy",
        "lens_varentropy",
        "lens_kl",
        "lens_top1",
        "lens_top1_prob",
        "hidden_norm",
        "hidden_delta_layer",
        "hidden_delta_step",
        "hidden_cosine_layer",
    ),
}
EMBEDDING_TOO = ("hidden_norm", "hidden_delta_step")


@pytest.fixture(scope="module")
def ds(scored):
    return scored.to_xarray()


def test_metrics_have_their_dims_and_sizes(ds, model, prompts):
    assert ds.sizes == {"prompt": 4, "step": max(map(len, prompts)), "layer": 4, "head": 4, "alpha": 3}
    assert set(ds.data_vars) == {"length", *RECORDED}
    for dims, names in DIMS.items():
        for name in names:
            assert ds[name].dims == (*STEP, *dims)
            assert ds[name].dtype == (np.int32 if name in ("token", "lens_top1") else np.float32)
    assert ds["entropy"].attrs["units"] == "nats"
    np.testing.assert_array_equal(ds["layer"], range(model.config.num_layers + 1))
    np.testing.assert_allclose(ds["alpha"], [0.5, 2, 5])


def test_steps_beyond_the_end_of_a_row_are_missing(ds, prompts):
    np.testing.assert_array_equal(ds["length"], [len(prompt) for prompt in prompts])
    for name, metric in RECORDED.items():
        for i, prompt in enumerate(prompts):
            beyond = ds[name].isel(prompt=i, step=slice(len(prompt), None)).values
            assert ((beyond == -1) if metric.integer else np.isnan(beyond)).all()


def test_embedding_layer_has_values_for_some_metrics_only(ds):
    for name, metric in RECORDED.items():
        if "layer" not in metric.dims:
            continue
        embedding = ds[name].sel(layer=0).values
        if name in EMBEDDING_TOO:
            assert np.isfinite(embedding[2, 1:]).all()
        else:
            assert ((embedding == -1) if metric.integer else np.isnan(embedding)).all()


def test_layer_coordinates_match_the_rows(ds, scored, prompts):
    for i, row in enumerate(scored.rows):
        reached = {"prompt": i, "step": slice(len(prompts[i]))}
        for name, values in row.metrics.items():
            metric = RECORDED[name]
            got = ds[name].isel(**reached)
            got = got.sel(layer=slice(metric.first_layer, None)) if "layer" in metric.dims else got
            np.testing.assert_array_equal(got, values, err_msg=name)


def test_first_position_has_no_hidden_delta_step(ds, generated):
    assert np.isnan(ds["hidden_delta_step"].isel(step=0)).all()
    first = generated.to_xarray()["hidden_delta_step"].isel(step=0)
    single = np.array([len(row.prompt_tokens) == 1 for row in generated.rows])
    np.testing.assert_array_equal(np.isnan(first.values).all(axis=-1), single)
    assert np.isfinite(first.values[~single]).all()


def test_array_holds_recorded_metrics_only(model, prompts):
    ds = model.generate(prompts, max_new_tokens=2, probes=Probes.none()).to_xarray()
    assert set(ds.data_vars) == {"length", "token"}
    assert (ds["token"] >= 0).all()


def test_trace_of_user_made_rows():
    row = Row(
        Prompt(id="a"),
        np.array([1]),
        ("x",),
        {"token": np.array([4, 5]), "entropy": np.ones(2)},
        ("", ""),
        "",
        "length",
    )
    short = Row(
        Prompt(id="b"), np.array([1]), ("x",), {"token": np.array([6]), "entropy": np.zeros(1)}, ("",), "", "length"
    )
    ds = Trace([row, short], {"layers": 2, "heads": 3, "alphas": []}).to_xarray()
    np.testing.assert_array_equal(ds["token"], [[4, 5], [6, -1]])
    np.testing.assert_array_equal(ds["entropy"], [[1, 1], [0, np.nan]])
    assert list(ds["prompt_id"].values) == ["a", "b"]
