"""Figures show the trace's numbers for the metrics it has, and are written as PNG."""

import matplotlib
import numpy as np
import pytest
from matplotlib.image import imread

from jaxtrace.figures.plots import attention_map, entropy_steps, figures, layer_profile, lens_profile, write_plots
from jaxtrace.figures.theme import DARK, LIGHT
from tests.figures.traces import row, trace


@pytest.fixture(scope="module")
def ds():
    rng = np.random.default_rng(0)
    return trace([row(rng, ["a"] * steps) for steps in (12, 5, 9)]).to_xarray()


def test_every_figure_is_written_as_png(ds, tmp_path):
    before = dict(matplotlib.rcParams)
    paths = write_plots(ds, tmp_path / "new" / "plots")
    assert [path.name for path in paths] == [
        "entropy_steps.png",
        "attention_map.png",
        "layer_profile.png",
        "lens_profile.png",
        "router_profile.png",
    ]
    for path in paths:
        assert path.read_bytes().startswith(b"\x89PNG")
        assert imread(path)[..., :3].std() > 0.02
    assert dict(matplotlib.rcParams) == before


@pytest.mark.parametrize(
    ("groups", "names"),
    [
        (("output",), ["entropy_steps"]),
        (("attention",), ["attention_map", "layer_profile"]),
        (("attention", "dispersion"), ["attention_map", "layer_profile"]),
        (("lens",), ["lens_profile"]),
        (("hidden",), []),
    ],
)
def test_figures_without_metrics_are_not_drawn(groups, names):
    one = trace([row(np.random.default_rng(0), ["a"] * 4, groups=groups)]).to_xarray()
    assert list(figures(one)) == names


def test_one_metric_is_enough_for_a_figure(ds, tmp_path):
    paths = write_plots(ds[["varentropy", "attention_entropy_normalized", "head_jsd", "lens_kl"]], tmp_path)
    assert len(paths) == 4


@pytest.mark.parametrize("draw", [entropy_steps, attention_map, layer_profile, lens_profile])
def test_error_names_the_missing_metrics(ds, draw):
    with pytest.raises(ValueError, match="has none of"):
        draw(ds[["hidden_norm"]])


def test_entropy_line_is_the_mean_over_the_prompts_alive(ds):
    panel, *_, strip = entropy_steps(ds).axes
    mean = next(line for line in panel.lines if line.get_label() == "mean")
    np.testing.assert_allclose(mean.get_ydata(), np.nanmean(ds["entropy"].values, 0))
    np.testing.assert_array_equal(strip.patches[0].get_data().values, [3] * 5 + [2] * 4 + [1] * 3)


def test_map_and_profiles_exclude_the_embedding(ds):
    image = attention_map(ds).axes[0].images[0]
    expected = ds["attention_entropy"].values[:, :, 1:]
    np.testing.assert_allclose(image.get_array(), np.nanmean(expected, (0, 3)).T, rtol=1e-5)
    line = lens_profile(ds).axes[2].lines[0]
    np.testing.assert_array_equal(line.get_xdata(), [1, 2, 3, 4, 5, 6])
    np.testing.assert_allclose(line.get_ydata(), np.nanmean(ds["lens_kl"].values[:, :, 1:], (0, 1)), rtol=1e-5)


def test_themes_have_their_own_paper_and_eight_line_colours(ds):
    papers = {entropy_steps(ds, theme).get_facecolor() for theme in (LIGHT, DARK)}
    assert len(papers) == 2
    for theme in (LIGHT, DARK):
        assert len({*theme.lines}) == 8 and theme.lines[:2] == (theme.first, theme.second)


@pytest.mark.parametrize("rows", [0, 1])
def test_trace_without_steps_has_no_figure(rows, tmp_path):
    rng = np.random.default_rng(0)
    assert write_plots(trace([row(rng, []) for _ in range(rows)]).to_xarray(), tmp_path) == []


def test_steps_without_a_finite_value_are_skipped(tmp_path):
    one = row(np.random.default_rng(0), ["a", "b", "c"])
    one.metrics["entropy"][-1] = np.nan
    assert len(write_plots(trace([one]).to_xarray(), tmp_path)) == 5


def test_layers_of_a_stride_are_drawn_at_their_numbers():
    rows = [row(np.random.default_rng(0), ["a"] * 5, layers=3)]
    ds = trace(rows, layers=6, layer_stride=2).to_xarray()
    for draw in (layer_profile, lens_profile):
        for axes in draw(ds).axes:
            np.testing.assert_array_equal(axes.lines[0].get_xdata(), [2, 4, 6])
            assert axes.get_xlim() == (0.5, 6.5)
    assert attention_map(ds).axes[0].images[0].get_extent() == [-0.5, 4.5, 1, 7]
