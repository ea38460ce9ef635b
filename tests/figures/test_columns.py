"""Token columns, their rounding, and the summary."""

import dataclasses
import io

import numpy as np
import pytest
from rich.console import Console

from jaxtrace.figures import summary_table
from jaxtrace.figures.columns import rounded, token_columns
from jaxtrace.figures.summary import gather
from jaxtrace.traces.depth import prediction_depth
from tests.figures.traces import row, trace


@pytest.mark.parametrize(
    ("tops", "depth"),
    [([5, 5, 5], 1), ([1, 5, 5], 2), ([5, 1, 5], 3), ([1, 2, 5], 3), ([5], 1)],
)
def test_prediction_depth(tops, depth):
    np.testing.assert_array_equal(prediction_depth(np.array([tops]), range(1, len(tops) + 1)), [depth])


def test_prediction_depth_of_every_second_layer():
    np.testing.assert_array_equal(prediction_depth(np.array([[1, 5, 5], [5, 1, 5]]), (2, 4, 6)), [4, 6])


def test_token_columns_are_means_over_layers_and_heads():
    one = row(np.random.default_rng(0), ["a", "b", "c"])
    columns = token_columns(one, (1, 2, 3))
    assert all(values.shape == (3,) for values in columns.values())
    np.testing.assert_allclose(columns["sink_mass"], one.metrics["sink_mass"].mean((1, 2)), rtol=1e-5)
    np.testing.assert_allclose(columns["surprisal"], -one.metrics["logprob"])


def test_rounded():
    values = np.array([1.23456, 123456, 0, np.nan, -np.inf, 1.23456e-9])
    assert rounded(values) == [1.235, 123500.0, 0.0, None, None, 1.235e-09]


def shown(one):
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(summary_table(one))
    return console.export_text()


def test_summary_says_what_is_there():
    rows = [
        row(np.random.default_rng(0), ["a"] * 4),
        row(np.random.default_rng(1), ["a"] * 2, stop="stop_token"),
    ]
    text = shown(trace(rows, model="a [bold]name"))
    entropy = np.concatenate([one.metrics["entropy"] for one in rows])
    assert "a [bold]name" in text
    assert f"{entropy.mean():.3f} · {np.median(entropy):.3f} · {np.quantile(entropy, 0.9):.3f} nats" in text
    assert "length 1, stop_token 1" in text
    assert "of 6 layers" in text


def test_summary_leaves_out_what_is_not():
    text = shown(trace([row(np.random.default_rng(0), ["a"] * 4, groups=("output",))]))
    assert "varentropy" in text
    assert "attention" not in text
    assert "layers" not in text
    assert "prompts" in shown(trace([]))


def test_the_summary_leaves_the_positions_of_prompts_out():
    one = row(np.random.default_rng(0), ["a"] * 5)
    whole, own = gather(trace([one])), gather(trace([dataclasses.replace(one, prompt_steps=2)]))
    np.testing.assert_array_equal(own["entropy"], whole["entropy"][2:])
    assert "tokens │ 3" in " ".join(shown(trace([dataclasses.replace(one, prompt_steps=2)])).split())


def decided(one, quadrants):
    return dataclasses.replace(one, metrics=one.metrics | {"quadrant": np.array(quadrants, np.int32)})


def test_what_a_sampler_decided_is_told_by_name():
    one = decided(row(np.random.default_rng(0), ["a"] * 4, groups=("output",)), [0, 4, 4, -1])
    np.testing.assert_array_equal(token_columns(one, ())["quadrant"], [0, 4, 4, np.nan])
    text = shown(trace([one]))
    assert "sampler's quadrant" in text and "flowing 33%, adaptive 67%" in text
