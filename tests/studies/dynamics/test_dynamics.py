"""`study dynamics` on hand-made traces: every table is recomputed from the long one by plain sums."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from jaxtrace.errors import StudyError
from jaxtrace.figures.theme import DARK, LIGHT
from jaxtrace.studies.dynamics.compute import dynamics, score_choices
from jaxtrace.studies.dynamics.long_format import long_frame, write_long
from jaxtrace.studies.dynamics.settings import DynamicsConfig
from jaxtrace.studies.dynamics.tables import paper_tables
from jaxtrace.studies.dynamics.token_tables import cached_tokens, token_tables
from jaxtrace.traces.trace import Trace
from tests.figures import traces as made

COLUMNS = (
    "model prompt phase step layer token_id token_text output_entropy top1_prob top1_top2_gap attn_entropy_mean hdi "
    "hidden_l2 delta_l2_from_prev delta_l2_step kv_bytes_layer kv_total_mb"
)
CACHE = {"layers": [1, 2, 3, 4, 5, 6], "kv_heads": 2, "head_dim": 8, "bytes": 2}
CONFIG = DynamicsConfig(resamples=50)
PER_TOKEN = 6 * 2 * 2 * 8 * 2
LENGTHS = (12, 31, 3, 20)


def made_trace(seed=0, lengths=LENGTHS, **info):
    """Return a trace of prompts of unequal lengths with different tokens."""
    rng = np.random.default_rng(seed)
    rows = [
        made.row(rng, [f" w{i}" for i in range(steps)], prompt=f"Question {n}?", id=f"q{n}", ids=range(4 + n))
        for n, steps in enumerate(lengths)
    ]
    return made.trace(rows, **{"cache": CACHE, "last_prompt_token_twice": False, **info})


@pytest.fixture(scope="module")
def traces():
    return {"one": made_trace(0), "two": made_trace(1, cache=CACHE | {"recurrent": 2**20})}


@pytest.fixture(scope="module")
def result(traces):
    return dynamics(traces, CONFIG)


@pytest.fixture(scope="module")
def long(traces):
    """Return the GEN rows of all prompts and models."""
    frames = [long_frame(label, trace, i) for label, trace in traces.items() for i in range(len(LENGTHS))]
    frame = pd.concat(frames)
    return frame[frame["phase"] == "GEN"]


def test_the_long_table_holds_the_rows_metrics(traces):
    trace = traces["one"]
    frame, row = long_frame("one", trace, 1), trace.rows[1]
    assert " ".join(frame.columns) == COLUMNS
    assert len(frame) == (1 + 31) * 7
    assert frame.groupby("phase", sort=False)["step"].unique().map(list).to_dict() == {
        "PROMPT": [0],
        "GEN": list(range(1, 32)),
    }
    assert set(frame["model"]) == {"one"} and set(frame["prompt"]) == {"q1"}
    at = frame[(frame["phase"] == "GEN") & (frame["step"] == 9)].set_index("layer")
    metrics = {name: values[8] for name, values in row.metrics.items()}
    assert (at["token_id"] == metrics["token"]).all() and (at["token_text"] == " w8").all()
    assert (at["output_entropy"] == metrics["entropy"]).all() and (at["top1_prob"] == metrics["top1_prob"]).all()
    assert (at["top1_top2_gap"] == metrics["top1_top2_gap"]).all()
    for layer in range(1, 7):
        heads = metrics["attention_entropy"][layer - 1]
        assert at.loc[layer, "attn_entropy_mean"] == pytest.approx(heads.mean())
        assert at.loc[layer, "hdi"] == pytest.approx(heads.std(), rel=1e-5)
        assert at.loc[layer, "delta_l2_from_prev"] == metrics["hidden_delta_layer"][layer - 1]
    assert at["hidden_l2"].tolist() == metrics["hidden_norm"].tolist()
    assert at["delta_l2_step"].tolist() == metrics["hidden_delta_step"].tolist()
    assert at.loc[0, ["attn_entropy_mean", "hdi", "delta_l2_from_prev"]].isna().all()
    assert at["kv_bytes_layer"].tolist() == [0] + [(5 + 8) * PER_TOKEN / 6] * 6
    assert at["kv_total_mb"].unique().tolist() == [(5 + 8) * PER_TOKEN / 2**20]
    prompt, first = frame[frame["step"] == 0], frame[frame["step"] == 1]
    same = [name for name in frame if name not in ("phase", "step")]
    assert prompt[same].reset_index(drop=True).equals(first[same].reset_index(drop=True))  # one measurement


def test_a_duplicated_last_token_adds_one_cached_token_and_a_prompt_step(traces):
    """The PROMPT step is the first of the two measurements, and is absent if positions were not traced."""
    plain, row = traces["one"], traces["one"].rows[0]
    twice = dataclasses.replace(row, prompt_tokens=np.append(row.prompt_tokens, row.prompt_tokens[-1]))
    frame = long_frame("m", made_like(plain, twice), 0)
    assert set(frame["phase"]) == {"GEN"}
    once = long_frame("m", plain, 0)
    last = [one[(one["phase"] == "GEN")]["kv_total_mb"].max() for one in (once, frame)]
    assert last == [(4 + 12 - 1) * PER_TOKEN / 2**20, (4 + 12) * PER_TOKEN / 2**20]  # P + G − 1, P + G tokens
    measured = dataclasses.replace(twice, prompt_steps=4)  # positions of all but the last of the five tokens fed
    frame = long_frame("m", made_like(plain, measured), 0)
    prompt = frame[frame["phase"] == "PROMPT"]
    assert prompt["output_entropy"].unique() == [row.metrics["entropy"][3]]
    assert prompt["kv_total_mb"].unique() == [4 * PER_TOKEN / 2**20]
    assert frame[frame["phase"] == "GEN"]["step"].max() == 8
    assert cached_tokens(measured).tolist() == list(range(1, 13))
    table = dynamics({"m": made_like(plain, measured)}, CONFIG).tables["table1_generation"].frame
    assert table[["prompt_tokens", "generated_tokens"]].iloc[0].tolist() == [4, 8]
    assert table["kv_mib_max"][0] == (4 + 8) * PER_TOKEN / 2**20


def made_like(trace, row):
    return Trace([row], trace.info | {"last_prompt_token_twice": True})


@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_the_long_table_round_trips_through_a_file(traces, tmp_path, kind):
    file = tmp_path / "long" / f"one.{kind}"
    write_long("one", traces["one"], file, bytes_per_element=4)
    got = pd.read_parquet(file) if kind == "parquet" else pd.read_csv(file)
    want = pd.concat([long_frame("one", traces["one"], i, bytes_per_element=4) for i in range(4)], ignore_index=True)
    pd.testing.assert_frame_equal(got, want, check_dtype=kind == "parquet", rtol=1e-6)
    assert got["kv_total_mb"].max() == 2 * (5 + 30) * PER_TOKEN / 2**20


def of(result, name, model="one"):
    frame = result.tables[name].frame
    return frame[frame["model"] == model]


def by_token(long, model="one"):
    """Return each drawn token's means over layers."""
    return long[long["model"] == model].groupby(["prompt", "step"], sort=False).mean(numeric_only=True)


@pytest.mark.parametrize("model", ["one", "two"])
def test_tables_of_tokens_follow_from_the_long_table(result, long, model):
    tokens = by_token(long, model)
    ours = {
        "entropy": "output_entropy",
        "top1_prob": "top1_prob",
        "top1_top2_gap": "top1_top2_gap",
        "attention_entropy": "attn_entropy_mean",
        "hdi": "hdi",
    }
    first = of(result, "table1_generation", model).iloc[0]
    for name, column in ours.items():
        assert first[name] == pytest.approx(tokens[column].mean(), rel=1e-5)
        assert first[f"{name}_sd"] == pytest.approx(np.std(tokens[column], ddof=1), rel=1e-5)
    assert first["prompts"] == 4 and first["prompt_tokens"] == 5.5 and first["generated_tokens"] == np.mean(LENGTHS)
    assert first["kv_mib_max"] == (5 + 30) * PER_TOKEN / 2**20
    for table, column in (
        ("table2_output_entropy", "output_entropy"),
        ("table3_attention_entropy", "attn_entropy_mean"),
    ):
        got = of(result, table, model).iloc[0][["p10", "p90", "min", "max"]].tolist()
        values = tokens[column]
        want = [*np.quantile(values, [0.1, 0.9]), values.min(), values.max()]
        assert got == pytest.approx(want, rel=1e-5)
    hidden = of(result, "table7_hidden", model).iloc[0]
    columns = {
        "hidden_norm": "hidden_l2",
        "hidden_delta_layer": "delta_l2_from_prev",
        "hidden_delta_step": "delta_l2_step",
    }
    for name, column in columns.items():
        assert hidden[name] == pytest.approx(tokens[column].mean(), rel=1e-5)
        assert hidden[f"{name}_sd"] == pytest.approx(np.std(tokens[column], ddof=1), rel=1e-4)


def test_tables_of_layers_follow_from_the_long_table(result, long):
    own = long[(long["model"] == "one") & (long["layer"] > 0)]
    of_prompts = own.groupby(["prompt", "layer"])[["attn_entropy_mean", "hdi"]].mean()
    profile = of_prompts.groupby("layer").mean()
    row = of(result, "table4_layers").iloc[0]
    entropy = profile["attn_entropy_mean"]
    assert row["layers"] == 6
    assert row["attention_entropy"] == pytest.approx(entropy.mean(), rel=1e-5)
    assert row["attention_entropy_sd"] == pytest.approx(entropy.std(), rel=1e-4)
    assert (row["lowest_layer"], row["highest_layer"]) == (entropy.idxmin(), entropy.idxmax())
    assert row["hdi"] == pytest.approx(profile["hdi"].mean(), rel=1e-5)
    extremes = of(result, "table6_layer_extremes")
    lowest = extremes[extremes["end"] == "lowest"]
    assert lowest["layer"].tolist() == entropy.sort_values().index[:5].tolist()
    assert lowest["hdi"].tolist() == pytest.approx(profile.loc[lowest["layer"], "hdi"].tolist(), rel=1e-5)
    highest = extremes[extremes["end"] == "highest"]
    assert highest["layer"].tolist() == entropy.sort_values(ascending=False).index[:5].tolist()
    assert (extremes["attention_entropy_low"] <= extremes["attention_entropy"]).all()
    assert (extremes["n"] == 4).all()


def test_early_and_late_exclude_short_prompts(result, traces):
    frame = of(result, "table5_early_late").set_index("metric")
    early, late = [], []
    for row in (traces["one"].rows[i] for i in (0, 1, 3)):  # the third has three steps
        fifth = row.length // 5
        early.append(row.metrics["entropy"][:fifth].mean())
        late.append(row.metrics["entropy"][-fifth:].mean())
    assert frame.loc["entropy", "early"] == pytest.approx(np.mean(early), rel=1e-5)
    assert frame.loc["entropy", "late"] == pytest.approx(np.mean(late), rel=1e-5)
    assert frame.loc["entropy", "drift"] == pytest.approx(np.mean(late) - np.mean(early), rel=1e-4)
    assert frame["n"].tolist() == [3, 3] and frame["left_out"].tolist() == [1, 1]
    assert any("one: q2, two: q2" in note and "fewer than 5 steps" in note for note in result.notes)


def test_recurrent_states_are_said_beside_the_kv_memory(result):
    (note,) = (note for note in result.notes if "recurrent" in note)
    assert note == "two: recurrent states take 1 MiB a row beside the KV memory, for any number of tokens."


def test_length_control_removes_growth_with_the_number_of_keys():
    """Heads with uniform weights have entropy ln(keys): growth and nothing else."""
    trace = made_trace(lengths=(40, 60, 50))
    rows = []
    for row in trace.rows:
        growth = np.log(cached_tokens(row))[:, None, None] * np.ones((row.length, 6, 4))
        changed = {"attention_entropy": growth, "attention_entropy_normalized": np.ones_like(growth)}
        rows.append(dataclasses.replace(row, metrics=row.metrics | changed))
    frame = of(dynamics({"one": Trace(rows, trace.info)}, CONFIG), "length_control").set_index("metric")
    assert frame.loc["attention_entropy", "drift_low"] > 0.5
    assert frame.loc["attention_entropy_normalized", "drift"] == 0
    assert frame.loc["attention_entropy_given_ln_keys", "drift"] == pytest.approx(0, abs=1e-9)


def test_means_are_over_prompts(result, traces):
    frame = of(result, "means").set_index("metric")
    means = [row.metrics["entropy"].mean() for row in traces["one"].rows]
    assert frame.loc["entropy", "mean"] == pytest.approx(np.mean(means), rel=1e-5)
    expected = stats.t.interval(0.95, len(means) - 1, np.mean(means), stats.sem(means))
    assert frame.loc["entropy", ["mean_low", "mean_high"]].to_list() == pytest.approx([*expected], rel=1e-5)
    assert frame.loc["entropy", "mean_few"]
    tokens = np.concatenate([row.metrics["entropy"] for row in traces["one"].rows])
    assert frame.loc["entropy", "token_mean"] == pytest.approx(tokens.mean(), rel=1e-5)
    assert frame.loc["entropy", ["n", "tokens"]].tolist() == [4, sum(LENGTHS)]


def test_classes_follow_the_rules(result):
    prompts = of(result, "class_prompts")
    assert prompts["prompt"].tolist() == ["q0", "q1", "q3"]
    for line in prompts.itertuples():
        assert line.drift_class == (
            "deterministic" if line.drift <= -0.3 else "exploratory" if line.drift >= 0.3 else "balanced"
        )
        assert line.agree == (line.drift_class == line.level_class == line.robust_class)
    counts = of(result, "class_counts").set_index("rule")
    for rule in ("drift", "level", "robust"):
        assert counts.loc[rule, "exploratory"] == (prompts[f"{rule}_class"] == "exploratory").sum()
        assert counts.loc[rule, ["deterministic", "exploratory", "balanced", "undecided"]].sum() == 3
    assert of(result, "class_disagreement")["prompts"].sum() == 3
    assert of(result, "class_disagreement")["share"].sum() == pytest.approx(1)
    model = of(result, "classes").iloc[0]
    assert model["drift"] == pytest.approx(prompts["drift"].mean()) and model["n"] == 3
    assert model["slope"] == pytest.approx(prompts["slope"].mean())


def test_one_prompt_has_an_interval_from_blocks_of_its_steps():
    result = dynamics({"one": made_trace(lengths=(200,))}, CONFIG)
    model, prompt = of(result, "classes").iloc[0], of(result, "class_prompts").iloc[0]
    assert model[["slope_low", "slope_high"]].tolist() == prompt[["slope_low", "slope_high"]].tolist()
    assert model["slope_low"] < model["slope"] < model["slope_high"]
    assert np.isnan(of(result, "means")["mean_low"]).all()


def test_samples_of_a_prompt_are_one_unit():
    trace = made_trace(lengths=(20,) * 12)
    rows = [
        dataclasses.replace(row, prompt_tokens=trace.rows[i // 6].prompt_tokens) for i, row in enumerate(trace.rows)
    ]
    result = dynamics({"one": Trace(rows, trace.info)}, CONFIG)
    assert (of(result, "means")["n"] == 2).all() and (of(result, "correlations")["n"] == 2).all()
    known = of(result, "correlations").dropna(subset="r_given_keys")
    assert known["r_few"].all() and known["r_given_keys_few"].all()
    assert all(picture.few for picture in result.pictures.values())


@pytest.mark.parametrize("kind", ["range", "jsd"])
def test_the_kind_of_dispersion_is_a_setting(traces, kind):
    result = dynamics(traces, DynamicsConfig(resamples=50, hdi=kind))
    if kind == "range":
        values = [np.ptp(row.metrics["attention_entropy"], axis=-1).mean(1) for row in traces["one"].rows]
    else:
        values = [row.metrics["head_jsd"].mean(1) for row in traces["one"].rows]
    assert of(result, "table1_generation")["hdi"].iloc[0] == pytest.approx(np.concatenate(values).mean(), rel=1e-5)


def test_pictures_have_a_panel_per_model_in_both_themes(result):
    for name, picture in result.pictures.items():
        for theme in (LIGHT, DARK):
            figure = picture.draw(theme)
            titles = [axes.get_title(loc="left") for axes in figure.axes]
            assert "one" in titles and "two" in titles, name


def test_intervals_of_one_resample_are_drawn():
    result = dynamics({"one": made_trace(lengths=(9,) * 12)}, DynamicsConfig(resamples=1))
    assert result.pictures["length_control"].draw(LIGHT).axes[0].containers


def test_auroc_of_features_for_wrong_choices():
    """Wrong choices go with high entropy, so its AUROC is 1; low top-1 probabilities give 0."""
    trace = made_trace(lengths=(8, 9, 10, 11, 12, 13))
    for number, row in enumerate(trace.rows):
        row.metrics["entropy"][:] += 100 * (number % 2)
        row.metrics["top1_prob"][:] = 1 - 0.5 * (number % 2)
    choices = pd.DataFrame(
        {
            "question": [f"Question {i}?" for i in range(6)] + ["Another?"],
            "mc1": [1.0, 0, 1, 0, 1, 0, 1],
            "mc2": np.linspace(0, 1, 7),
            "mc3": 0.5,
            "chance": 0.25,
        }
    )
    result = dynamics({"one": trace}, CONFIG, {"one": choices})
    scores = of(result, "choices").iloc[0]
    assert scores["mc1"] == pytest.approx(4 / 7) and scores["mc2"] == pytest.approx(0.5) and scores["n"] == 7
    found = of(result, "choices_auroc").set_index("feature")
    assert found.loc["entropy", "auroc"] == 1 and found.loc["top1_prob", "auroc"] == 0
    assert found.loc["steps", "auroc"] == found.loc["prompt_tokens", "auroc"] == pytest.approx(6 / 9)  # by their order
    assert found.loc["entropy", "auroc_given_length"] == 1
    assert np.isnan(found.loc["steps", "auroc_given_length"])
    assert (found["n"] == 6).all() and (found["wrong"] == 3).all()


def test_choices_of_one_class_are_refused():
    trace, frame = (
        made_trace(),
        pd.DataFrame({"question": ["Question 0?"], "mc1": 1.0, "mc2": 1.0, "mc3": 1.0, "chance": 0.5}),
    )
    with pytest.raises(StudyError, match="MC1 is right for all 1 traced questions"):
        dynamics({"one": trace}, CONFIG, {"one": frame})
    with pytest.raises(StudyError, match="none of the traced prompts is among the questions"):
        dynamics({"one": trace}, CONFIG, {"one": frame.assign(question="Else?")})


def test_a_model_with_choices_of_one_class_is_absent_from_the_auroc_table(traces):
    mixed = pd.DataFrame({"question": [f"Question {i}?" for i in range(4)], "mc1": [1.0, 0, 1, np.nan]})
    mixed = mixed.assign(mc2=mixed["mc1"], mc3=mixed["mc1"], chance=0.5)
    wrong = mixed.assign(mc1=0.0)
    result = dynamics(traces, CONFIG, {"one": wrong, "two": mixed})
    assert result.tables["choices"].frame[["model", "mc1", "n"]].to_numpy().tolist() == [
        ["one", 0, 4],
        ["two", 2 / 3, 3],
    ]
    told = result.tables["choices_auroc"].frame
    assert set(told["model"]) == {"two"} and told.set_index("feature").loc["entropy", ["n", "wrong"]].tolist() == [3, 1]
    assert "one: MC1 is wrong for all 4 traced questions, and AUROC needs both classes: it is absent" in " ".join(
        result.notes
    )
    assert any(note.startswith("two: 1 of 4 questions have an answer") for note in result.notes)
    with pytest.raises(StudyError, match=r"one: MC1 is wrong for all 4 .*; two: none of the traced prompts"):
        dynamics(traces, CONFIG, {"one": wrong, "two": mixed.assign(question="Else?")})


@pytest.mark.parametrize(("kind", "unit"), [("std", "in nats"), ("var", "in nats²"), ("cv", "without a unit")])
def test_the_table_states_the_unit_of_dispersion(traces, kind, unit):
    text = paper_tables(token_tables(traces, hdi=kind), DynamicsConfig(hdi=kind, resamples=2))["table1_generation"].text
    assert f"entropies in nats, hdi ({kind}) {unit};" in text


def test_unusable_traces_are_refused():
    rng = np.random.default_rng(0)
    few = made.trace([made.row(rng, ["a"] * 9, groups=("output", "attention"))])
    with pytest.raises(StudyError, match=r"hidden_norm.*--probes that include hidden"):
        dynamics({"one": few}, CONFIG)
    bare = made.trace([made.row(rng, ["a"] * 9, groups=("output", "attention", "hidden"))])
    assert dynamics({"one": bare}, CONFIG).tables
    with pytest.raises(StudyError, match=r"head_jsd.*--probes that include dispersion"):
        dynamics({"one": bare}, DynamicsConfig(resamples=50, hdi="jsd"))
    with pytest.raises(StudyError, match="is a trace of given text"):
        dynamics({"one": Trace(bare.rows, bare.info | {"mode": "score"})}, CONFIG)
    with pytest.raises(StudyError, match="no prompt has 5 steps or more"):
        dynamics({"one": made_trace(lengths=(4, 2))}, CONFIG)
    assert np.isnan(dynamics({"one": bare}, CONFIG).tables["table1_generation"].frame["kv_mib_max"][0])


def test_steps_without_a_token_are_dropped(traces):
    row = traces["one"].rows[1]
    metrics = {name: values.copy() for name, values in row.metrics.items()}
    metrics["token"][-1] = -1
    for name, values in metrics.items():
        if values.dtype == np.float32:
            metrics[name][-1] = np.nan
    broken = Trace([dataclasses.replace(row, metrics=metrics), traces["one"].rows[0]], traces["one"].info)
    result = dynamics({"one": broken}, CONFIG)
    assert of(result, "table1_generation")["generated_tokens"].iloc[0] == (30 + 12) / 2
    assert of(result, "means")[["token_mean", "token_sd"]].notna().all(axis=None)
    metrics["token"][:] = -1
    with pytest.raises(StudyError, match="has no step with finite logits"):
        dynamics({"one": Trace([dataclasses.replace(row, metrics=metrics)], broken.info)}, CONFIG)


def test_an_unreadable_primer_is_refused(traces, tmp_path):
    choices = tmp_path / "mc.json"
    targets = '{"Yes.": 1, "No.": 0}'
    choices.write_text(f'[{{"question": "Is it?", "mc1_targets": {targets}, "mc2_targets": {targets}}}]')
    assert score_choices(traces, CONFIG) == {}
    with pytest.raises(StudyError, match="none of the traced prompts is among the questions that it holds"):
        score_choices(traces, DynamicsConfig(choices=str(choices)))
    with pytest.raises(StudyError, match=r"cannot be read .*; name a UTF-8 text file as the primer"):
        score_choices(traces, DynamicsConfig(choices=str(choices), primer=tmp_path / "none.txt"))
