"""Classes, head dispersion, KV memory and correlations of `study dynamics`, each against a plain computation."""

import numpy as np
import pandas as pd
import pytest

from jaxtrace.models.published import published_shape
from jaxtrace.statistics.intervals import Estimate, bootstrap, prompt_means
from jaxtrace.studies.dynamics.classes import drift_class, early_late, entropy_slope, level_class, robust_class
from jaxtrace.studies.dynamics.correlations import correlations
from jaxtrace.studies.dynamics.quantities import HDI_UNITS, KVMemory, dispersion

# arXiv 2604.03589: mean ± SD of output entropy (Table 1) and its late − early (Table 5), in nats
PAPER = {
    "LLaMA": (0.570, 0.722, -0.388),
    "Gemma": (0.678, 0.920, 0.489),
    "DeepSeek": (0.124, 0.483, -0.526),
    "Qwen": (0.374, 0.527, 0.255),
}
BY_DRIFT = {"LLaMA": "deterministic", "DeepSeek": "deterministic", "Gemma": "exploratory", "Qwen": "balanced"}
BY_LEVEL = {"DeepSeek": "deterministic", "Gemma": "exploratory", "LLaMA": "balanced", "Qwen": "balanced"}


def test_the_papers_figures_give_its_classes():
    assert {name: drift_class(drift) for name, (_, _, drift) in PAPER.items()} == BY_DRIFT
    assert {name: level_class(mean, sd) for name, (mean, sd, _) in PAPER.items()} == BY_LEVEL


@pytest.mark.parametrize("tau", [0.256, 0.387])
def test_thresholds_between_qwen_and_llama_give_the_same_classes(tau):
    assert {name: drift_class(drift, tau) for name, (_, _, drift) in PAPER.items()} == BY_DRIFT


def test_thresholds_outside_give_other_classes():
    assert drift_class(PAPER["Qwen"][2], 0.25) == "exploratory"
    assert drift_class(PAPER["LLaMA"][2], 0.39) == "balanced"
    assert drift_class(-0.3) == "deterministic" and drift_class(0.3) == "exploratory"


@pytest.mark.parametrize(
    ("low", "high", "label"),
    [
        (-0.9, -0.4, "deterministic"),
        (0.4, 0.9, "exploratory"),
        (-0.2, 0.1, "balanced"),
        (-0.5, 0.1, "undecided"),
        (-0.5, 0.5, "undecided"),
        (0.2, 0.4, "undecided"),
        (np.nan, np.nan, "undecided"),
    ],
)
def test_the_robust_rule_decides_only_if_its_interval_excludes_the_thresholds(low, high, label):
    assert robust_class(Estimate(0.0, low, high, 5), 0.3) == label


@pytest.mark.parametrize(("slope", "label"), [(-2.0, "deterministic"), (2.0, "exploratory"), (0.0, "balanced")])
def test_the_robust_rule_recovers_a_known_slope(rng, slope, label):
    time = np.arange(1, 401) / 400
    estimate = entropy_slope(1 + slope * time + rng.normal(0, 0.3, 400))
    assert estimate.value == pytest.approx(slope, abs=0.2) and estimate.low < estimate.value < estimate.high
    assert robust_class(estimate) == label


def test_early_and_late_are_whole_fifths():
    assert early_late(np.arange(10.0)) == (0.5, 8.5)
    assert early_late(np.arange(14.0)) == (0.5, 12.5)  # two whole steps of 2.8
    assert early_late(np.array([3.0, 1.0, 2.0])) == (3.0, 2.0)


@pytest.mark.parametrize("kind", HDI_UNITS)
def test_dispersion_by_its_definitions(rng, kind):
    weights = rng.dirichlet(np.full(9, 0.4), (3, 2, 4))  # steps, layers, heads, keys
    entropies = -(weights * np.log(weights)).sum(-1)
    mixed = weights.mean(2)
    jsd = -(mixed * np.log(mixed)).sum(-1) - entropies.mean(-1)
    got = dispersion({"attention_entropy": entropies, "head_jsd": jsd}, kind)
    for step in range(3):
        for layer in range(2):
            heads = entropies[step, layer].tolist()
            mean = sum(heads) / 4
            var = sum((head - mean) ** 2 for head in heads) / 4
            want = {
                "std": var**0.5,
                "var": var,
                "cv": var**0.5 / mean,
                "fano": var / mean,
                "range": max(heads) - min(heads),
                "jsd": jsd[step, layer],
            }[kind]
            assert got[step, layer] == pytest.approx(want, rel=1e-9)


def test_ratios_to_zero_entropy_are_nan():
    nothing = {"attention_entropy": np.zeros((1, 1, 3))}
    assert np.isnan(dispersion(nothing, "cv")).all() and np.isnan(dispersion(nothing, "fano")).all()
    assert dispersion(nothing, "std") == 0


@pytest.mark.parametrize(
    ("name", "layers", "kv_heads", "head_dim", "tokens", "mib"),
    [
        ("llama-3.2-1b", 16, 8, 64, 46 + 360, 25.375),
        ("gemma-3-1b", 26, 1, 256, 19 + 133, 7.71875),
        ("deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B", 28, 2, 128, 16 + 26, 2.296875),
        ("qwen3-1.7b", 28, 8, 128, 23 + 431, 99.3125),
    ],
)
def test_kv_memory_matches_the_papers_table_1(name, layers, kv_heads, head_dim, tokens, mib):
    info = {"cache": {"layers": [*range(1, layers + 1)], "kv_heads": kv_heads, "head_dim": head_dim, "bytes": 2}}
    memory = KVMemory.from_info(info, bytes_per_element=4)
    assert memory is not None and memory.mib(tokens) == mib
    assert sum(memory.layer_bytes(layer, tokens) for layer in range(layers + 1)) == mib * 2**20
    assert KVMemory.from_info(info).mib(tokens) == mib / 2
    shape = published_shape(name)
    if shape is not None:
        assert (shape.num_layers, shape.kv_heads, shape.head_dim) == (layers, kv_heads, head_dim)
        assert shape.kv_bytes(tokens) == mib * 2**20


def made_tokens(rng, prompts=12, each=15):
    """Return three features, of which x and y share the cause z and x has an offset per prompt."""
    own = np.repeat(rng.normal(size=prompts), each)
    z = rng.normal(size=prompts * each)
    x, y = z + own + rng.normal(size=z.size), z + rng.normal(size=z.size)
    return pd.DataFrame({"x": x, "y": y, "z": z, "flat": 1.0}), np.repeat(np.arange(prompts), each)


def test_correlations_match_numpy_with_intervals_over_prompts(rng):
    frame, groups = made_tokens(rng)
    found = correlations(frame, groups, resamples=2000).set_index(["x", "y"])
    for pair in (("x", "y"), ("x", "z"), ("y", "z")):
        a, b = frame[pair[0]].to_numpy(), frame[pair[1]].to_numpy()
        assert found.loc[pair, "r"] == pytest.approx(np.corrcoef(a, b)[0, 1], abs=1e-12)
        drawn = []
        for _ in range(2000):
            rows = np.concatenate([np.flatnonzero(groups == one) for one in rng.integers(12, size=12)])
            drawn.append(np.corrcoef(a[rows], b[rows])[0, 1])
        assert found.loc[pair, ["r_low", "r_high"]].tolist() == pytest.approx(
            np.quantile(drawn, [0.025, 0.975]).tolist(), abs=0.03
        )
        assert found.loc[pair, ["n", "tokens"]].tolist() == [12, 180]
    assert found.loc[[("x", "flat"), ("y", "flat")], ["r", "r_low"]].isna().all(axis=None)


def test_partial_correlations_are_correlations_of_residuals(rng):
    frame, groups = made_tokens(rng)
    found = correlations(frame.drop(columns="flat"), groups, fixed="z")
    assert found[["x", "y"]].to_numpy().tolist() == [["x", "y"]]
    design = np.column_stack([np.ones(180), frame["z"]])
    x, y = (frame[name] - design @ np.linalg.lstsq(design, frame[name], rcond=None)[0] for name in ("x", "y"))
    assert found["r"][0] == pytest.approx(np.corrcoef(x, y)[0, 1], abs=1e-12)
    assert found["r_low"][0] < found["r"][0] < found["r_high"][0]


def test_spearman_ranks_and_drops_rows_with_nan(rng):
    frame, groups = made_tokens(rng)
    frame = frame.drop(columns="flat")
    bent = frame.assign(x=np.exp(frame["x"]))
    plain, other = (correlations(one, groups, method="spearman", resamples=50) for one in (frame, bent))
    assert plain["r"].tolist() == pytest.approx(other["r"].tolist())
    assert plain.set_index(["x", "y"]).loc[("x", "y"), "r"] == pytest.approx(
        frame[["x", "y"]].corr(method="spearman").iloc[0, 1]
    )
    frame.loc[3, "y"] = np.nan
    some = correlations(frame, np.zeros(180, int), resamples=50)
    assert some["tokens"].unique() == 179 and some["r_low"].isna().all() and some["r"].notna().all()


def test_means_of_all_columns_match_bootstraps_of_each(rng):
    frame, groups = made_tokens(rng)
    frame.loc[groups == 2, "y"] = np.nan
    frame["none"] = np.nan
    found = prompt_means(frame, pd.Series(groups), resamples=4000)
    for name in ("x", "y", "z"):
        there = frame[name].notna().to_numpy()
        want = bootstrap(np.mean, frame[name][there], groups=groups[there], resamples=4000)
        assert found[name].value == pytest.approx(want.value) and found[name].n == want.n
        assert (found[name].low, found[name].high) == pytest.approx((want.low, want.high), abs=0.05)
    assert found["flat"] == Estimate(1.0, 1.0, 1.0, 12)
    assert np.isnan(found["none"].value) and found["none"].n == 0
