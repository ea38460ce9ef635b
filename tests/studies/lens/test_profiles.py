"""Profiles, compared with the written-out definitions."""

import dataclasses

import numpy as np
import pytest

from jaxtrace.errors import StudyError
from jaxtrace.studies._shared.published import pad_with_zeros
from jaxtrace.studies._shared.traces import single_runs
from jaxtrace.studies.lens.distances import family_distances
from jaxtrace.studies.lens.profiles import gather_profiles, interpolated, parse_metric, profile_of, windowed
from jaxtrace.traces import open_trace
from jaxtrace.traces.writer import TraceWriter
from tests import oracle
from tests.figures.traces import row, trace

EACH_OWN = {"label": lambda _, row: row.prompt.meta.get("kind"), "group": lambda _, row: row.prompt.text}


def answers(rng, kinds, steps=8, **options):
    """Return rows of some kinds with `steps` steps each, or with the lengths of a list."""
    lengths = steps if isinstance(steps, list) else [steps] * len(kinds)
    return [
        row(rng, ["x"] * length, meta={"kind": kind}, prompt=f"prompt {i}", **options)
        for i, (kind, length) in enumerate(zip(kinds, lengths, strict=True))
    ]


def test_windows_are_means_over_runs_of_equal_length(rng):
    profile = rng.normal(size=(12, 5))
    np.testing.assert_allclose(windowed(profile, 1), [profile.mean(0)])
    np.testing.assert_allclose(windowed(profile, 3), profile.reshape(3, 4, 5).mean(1))  # the published reshape
    np.testing.assert_array_equal(windowed(profile, "each"), profile)
    uneven = windowed(profile[:10], 3)
    for window, (start, end) in zip(uneven, [(0, 4), (4, 7), (7, 10)], strict=True):
        np.testing.assert_allclose(
            window, [sum(profile[t, i] for t in range(start, end)) / (end - start) for i in range(5)]
        )


def test_interpolation_is_linear_between_layers(rng):
    depth, values = np.arange(1, 7) / 6, rng.normal(size=(2, 6))
    grid = np.linspace(1 / 6, 1, 23)
    for window, found in zip(values, interpolated(values, depth, grid), strict=True):
        for u, value in zip(grid, found, strict=True):
            right = min(max(1, sum(d < u - 1e-12 for d in depth)), 5)
            share = (u - depth[right - 1]) / (depth[right] - depth[right - 1])
            assert value == pytest.approx(window[right - 1] + share * (window[right] - window[right - 1]))
    np.testing.assert_allclose(interpolated(values, depth, depth), values)


def test_models_of_two_depths_share_a_grid(rng):
    small, large = (trace(answers(rng, ["a", "b"], layers=n), layers=n, model=f"of {n}") for n in (3, 6))
    found = gather_profiles({"s": small, "l": large}, "lens_entropy", **EACH_OWN)
    assert not found.one_depth
    grid = found.grid(64)
    assert (grid[0], grid[-1], len(grid)) == (1 / 3, 1.0, 64)
    features = found.on(grid)
    assert features.shape == (4, 1, 64)
    for i, (of, layers) in enumerate([(small, 3), (small, 3), (large, 6), (large, 6)]):
        own = of.rows[i % 2].metrics["lens_entropy"].astype(float).mean(0)
        np.testing.assert_allclose(features[i, 0], np.interp(grid, np.arange(1, layers + 1) / layers, own))
    padded = pad_with_zeros(found.values)
    assert padded.shape == (4, 1, 6)
    assert (padded[:2, :, 3:] == 0).all() and (padded[2:, :, 3:] != 0).all()
    assert found.answers["model"].tolist() == ["of 3", "of 3", "of 6", "of 6"]


def test_profiles_of_one_depth_are_not_interpolated(rng):
    found = gather_profiles({"t": trace(answers(rng, ["a"]))}, "lens_kl", **EACH_OWN)
    np.testing.assert_array_equal(found.grid(64), np.arange(1, 7) / 6)
    np.testing.assert_array_equal(found.on(found.grid(64))[0], found.values[0])
    every_second = trace(answers(rng, ["a"], layers=3), layers=6, layer_stride=2)
    found = gather_profiles({"t": every_second}, "lens_kl", **EACH_OWN)
    np.testing.assert_allclose(found.depths[0], [2 / 6, 4 / 6, 1])


def test_heads_are_averaged_and_the_embedding_is_excluded(rng):
    (one,) = answers(rng, ["a"])
    entropy = one.metrics["attention_entropy_no_sink"].astype(float)
    by_hand = [[sum(entropy[t, i, h] for h in range(4)) / 4 for i in range(6)] for t in range(8)]
    np.testing.assert_allclose(profile_of(one, "attention_entropy_no_sink"), by_hand)
    np.testing.assert_array_equal(profile_of(one, "hidden_norm"), one.metrics["hidden_norm"][:, 1:])


def test_renyi_entropies_are_selected_by_order(rng):
    logits = rng.normal(size=(8, 6, 20))
    renyi = np.stack([oracle.renyi(logits, alpha) for alpha in (0.5, 2.0, 5.0)], axis=-1)
    (one,) = answers(rng, ["a"])
    one.metrics["lens_renyi"] = renyi.astype(np.float32)
    of = {"t": trace([one], lens_renyi=True)}
    found = gather_profiles(of, "lens_renyi[2]", **EACH_OWN)
    np.testing.assert_allclose(found.values[0][0], oracle.renyi(logits, 2.0).mean(0), rtol=1e-6)
    with pytest.raises(StudyError, match=r"t: has no Rényi entropy of order 3, only 0\.5, 2, 5"):
        gather_profiles(of, "lens_renyi[3]", **EACH_OWN)
    with pytest.raises(StudyError, match="t: has no lens_renyi; trace it again with --lens-renyi"):
        gather_profiles({"t": trace(answers(rng, ["a"]))}, "lens_renyi[2]", **EACH_OWN)


def test_prompt_positions_are_excluded_from_the_answer(rng):
    (one,) = answers(rng, ["a"])
    ahead = dataclasses.replace(one, prompt_steps=3)
    found = gather_profiles({"t": trace([ahead])}, "lens_entropy", **EACH_OWN)
    np.testing.assert_allclose(found.values[0][0], one.metrics["lens_entropy"][3:].astype(float).mean(0))
    assert found.answers["steps"].tolist() == [5]


def test_prediction_depth_matches_the_oracle(rng):
    rows = answers(rng, ["a"] * 6)
    for one in rows:
        one.metrics["lens_top1"] = rng.integers(0, 2, (8, 6)).astype(np.int32)
    found = gather_profiles({"t": trace(rows)}, "lens_entropy", **EACH_OWN, steps=5).answers["prediction_depth"]
    for one, depth in zip(rows, found, strict=True):
        wanted = [oracle.prediction_depth(tops) / 6 for tops in one.metrics["lens_top1"][:5]]
        assert depth == pytest.approx(sum(wanted) / 5)


def test_unusable_answers_are_excluded_and_counted(rng):
    rows = answers(rng, ["a", "b", None, "a", "b"], steps=[8, 3, 8, 8, 0])
    rows[3].metrics["lens_entropy"][2, 1] = np.nan
    del rows[2].prompt.meta["kind"]
    found = gather_profiles({"t": trace(rows)}, "lens_entropy", **EACH_OWN, windows=4)
    assert found.excluded == {"shorter than 4 steps": 2, "without a label": 1, "with NaN": 1}
    assert found.answers["label"].tolist() == ["a"]
    with pytest.raises(StudyError, match="no usable answer: 4 shorter than 9 steps, 1 without a label"):
        gather_profiles({"t": trace(rows[:3] + rows[4:] + answers(rng, ["a"]))}, "lens_entropy", **EACH_OWN, steps=9)


def test_each_window_needs_answers_of_one_length(rng):
    of = {"t": trace(answers(rng, ["a", "b"], steps=[8, 5]))}
    with pytest.raises(StudyError, match="answers have 5 to 8 steps; fix the number with --steps"):
        gather_profiles(of, "lens_entropy", **EACH_OWN, windows="each")
    found = gather_profiles(of, "lens_entropy", **EACH_OWN, windows="each", steps=5)
    np.testing.assert_array_equal(found.values[0], of["t"].rows[0].metrics["lens_entropy"][:5])


@pytest.mark.parametrize(
    "metric", ["entropy", "lens_top1", "lens_renyi", "lens_entropy[2]", "nonsense", "lens_renyi[x]"]
)
def test_metrics_without_layers_are_refused(metric):
    with pytest.raises(StudyError, match=r"choose one of: attention_.*lens_renyi\[2\]|no order of a Rényi entropy"):
        parse_metric(metric)
    assert parse_metric("lens_renyi[inf]") == ("lens_renyi", np.inf)


def test_a_missing_metric_names_its_probes(rng):
    with pytest.raises(StudyError, match=r"t: has no lens_entropy; .* lens"):
        gather_profiles({"t": trace(answers(rng, ["a"], groups=("output",)))}, "lens_entropy", **EACH_OWN)


def test_a_single_layer_is_refused(rng):
    of = {"t": trace(answers(rng, ["a"], layers=1), layers=6, layer_stride=6)}
    with pytest.raises(StudyError, match="one layer makes no profile"):
        gather_profiles(of, "lens_entropy", **EACH_OWN)


def test_a_dataset_is_split_into_its_runs(rng, tmp_path):
    for name in ("one", "two"):
        made = trace(answers(rng, ["a"] * 3), model=name)
        info = made.info | {"probes": [], "layer_stride": 1}
        with TraceWriter(tmp_path, info, {}, partition=f"model={name}") as writer:
            writer.write(list(enumerate(made.rows)))
    found = single_runs({"all": open_trace(tmp_path)})
    assert list(found) == ["all/model=one", "all/model=two"]
    assert [(of.info["model"], len(of.rows)) for of in found.values()] == [("one", 3), ("two", 3)]


def test_distances_within_families_and_across(rng):
    models = np.repeat([f"m{i}" for i in range(6)], 20)
    families = np.repeat(["a", "a", "a", "b", "b", "b"], 20)
    shapes = np.where(families[:, None] == "a", np.linspace(0, 3, 16), np.linspace(3, 0, 16) ** 2 / 3)
    features = shapes + rng.normal(0, 0.2, shapes.shape)
    found = family_distances(features, models, families).set_index("measure")
    means = [features[models == name].mean(0) for name in np.unique(models)]
    kin = [families[models == name][0] for name in np.unique(models)]
    for measure in ("pearson", "l2"):
        within, across = [], []
        for i in range(6):
            for j in range(i):
                gap = means[i] - means[j]
                distance = (
                    1 - np.corrcoef(means[i], means[j])[0, 1] if measure == "pearson" else np.sqrt((gap**2).mean())
                )
                (within if kin[i] == kin[j] else across).append(distance)
        row = found.loc[measure]
        assert (row["pairs_within"], row["pairs_across"]) == (len(within), len(across)) == (6, 9)
        assert row["within"] == pytest.approx(np.mean(within)) and row["across"] == pytest.approx(np.mean(across))
        assert row["gap"] == pytest.approx(np.mean(across) - np.mean(within))
        assert 0 < row["gap_low"] < row["gap_high"] < 1.2 * row["gap"]  # resampling adds noise to both ends
        assert 0.05 < row["p"] < 0.2  # 2 of the 20 ways to split six models in threes keep the families
    assert family_distances(features, models, models).empty
