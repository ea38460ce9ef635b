"""Token columns, their rounding, and the summary."""

import dataclasses
import io

import numpy as np
import pytest
from rich.console import Console

from jaxtrace.figures import summary_table
from jaxtrace.figures.columns import rounded, token_columns
from jaxtrace.figures.summary import trace_columns
from jaxtrace.traces.depth import prediction_depth
from tests.figures.traces import row, trace


@pytest.mark.parametrize(("tops", "depth"), [([5, 5, 5], 1), ([1, 5, 5], 2), ([5, 1, 5], 3), ([1, 2, 5], 3), ([5], 1)])
def test_prediction_depth_is_the_first_layer_that_keeps_the_last_top_token(tops, depth):
    np.testing.assert_array_equal(prediction_depth(np.array([tops]), range(1, len(tops) + 1)), [depth])


def test_prediction_depth_is_a_layer_number_with_a_stride():
    np.testing.assert_array_equal(prediction_depth(np.array([[1, 5, 5], [5, 1, 5]]), (2, 4, 6)), [4, 6])


def test_token_columns_are_means_over_layers_and_heads():
    one = row(np.random.default_rng(0), ["a", "b", "c"])
    columns = token_columns(one, (1, 2, 3))
    assert all(values.shape == (3,) for values in columns.values())
    np.testing.assert_allclose(columns["sink_mass"], one.metrics["sink_mass"].mean((1, 2)), rtol=1e-5)
    np.testing.assert_allclose(columns["surprisal"], -one.metrics["logprob"])


def test_rounded_keeps_significant_digits_and_nulls_what_is_not_finite():
    values = np.array([1.23456, 123456, 0, np.nan, -np.inf, 1.23456e-9])
    assert rounded(values) == [1.235, 123500.0, 0.0, None, None, 1.235e-09]


def printed(one):
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(summary_table(one))
    return console.export_text()


def test_summary_has_totals_and_means():
    rows = [row(np.random.default_rng(0), ["a"] * 4), row(np.random.default_rng(1), ["a"] * 2, stop="stop_token")]
    text = printed(trace(rows, model="a [bold]name"))
    entropy = np.concatenate([one.metrics["entropy"] for one in rows])
    assert "a [bold]name" in text
    assert f"{entropy.mean():.3f} · {np.median(entropy):.3f} · {np.quantile(entropy, 0.9):.3f} nats" in text
    assert "length 1, stop_token 1" in text
    assert "of 6 layers" in text


def test_summary_omits_groups_that_were_not_recorded():
    text = printed(trace([row(np.random.default_rng(0), ["a"] * 4, groups=("output",))]))
    assert "varentropy" in text
    assert "attention" not in text
    assert "layers" not in text
    assert "prompts" in printed(trace([]))


def test_summary_excludes_prompt_positions():
    one = row(np.random.default_rng(0), ["a"] * 5)
    with_prompt = trace([dataclasses.replace(one, prompt_steps=2)])
    all_steps, drawn_steps = trace_columns(trace([one])), trace_columns(with_prompt)
    np.testing.assert_array_equal(drawn_steps["entropy"].values, all_steps["entropy"].values[2:])
    assert "tokens │ 3" in " ".join(printed(with_prompt).split())


def with_quadrants(one, quadrants):
    return dataclasses.replace(one, metrics=one.metrics | {"quadrant": np.array(quadrants, np.int32)})


def test_summary_names_the_sampler_s_quadrants():
    one = with_quadrants(row(np.random.default_rng(0), ["a"] * 4, groups=("output",)), [0, 4, 4, -1])
    np.testing.assert_array_equal(token_columns(one, ())["quadrant"], [0, 4, 4, np.nan])
    text = printed(trace([one]))
    assert "sampler's quadrant" in text and "flowing 33%, adaptive 67%" in text
