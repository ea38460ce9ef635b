"""Scores of estimators as baselines and features of a confidence."""

import dataclasses

import numpy as np
import pytest

from jaxtrace.errors import ConfigError, LackingError, StudyError
from jaxtrace.estimators import estimate, known_estimators
from jaxtrace.estimators.registry import ESTIMATORS, IDENTIFIERS, Estimator
from jaxtrace.estimators.scores import Scores
from jaxtrace.studies.confidence.compute import complete_scores, train
from jaxtrace.studies.confidence.features import feature_tables
from jaxtrace.studies.confidence.files import load, save
from jaxtrace.studies.confidence.scores import (
    NEVER_FEATURES,
    REPEATED,
    estimator_scores,
    feature_estimators,
    uncertainties,
)
from jaxtrace.studies.confidence.settings import ConfidenceConfig
from tests.figures.traces import trace
from tests.studies.confidence.traces import answers, write_labels

ATTENTION = ("output", "attention")
VOCAB = 10**6
QUICK = ConfidenceConfig(resamples=2, folds=2, hidden=2)
GROUPED = ConfidenceConfig(resamples=2, folds=2, hidden=2, group="name")


def complete(rng, count=24, steps=4, **options):
    """Return answers whose traces allow every estimator of one pass, and whose words differ in relevance."""
    answered = answers(rng, count, groups=ATTENTION, steps=steps, **options)
    rows = [dataclasses.replace(row, pieces=(" one", " one two", *row.pieces[2:])) for row in answered.rows]
    for row in rows:
        row.metrics["renyi"] = np.sort(rng.uniform(0.1, 3, (steps, 3)))[:, ::-1]
    return trace(rows, layers=4, heads=2, alphas=[0.25, 0.5, 2.0], vocab_size=VOCAB)


@pytest.fixture(scope="module")
def sampled(tmp_path_factory):
    """Answers, four to each prompt, the file of their labels, and the confidence trained on them."""
    rng = np.random.default_rng(3)
    answered = complete(rng, 8, samples=4)
    right = np.array([row.metrics["entropy"].mean() < 1.5 for row in answered.rows])
    labels = write_labels(tmp_path_factory.mktemp("sampled") / "labels.csv", answered, right)
    return answered, labels, *train({"m": answered}, labels, QUICK)


def test_baselines_are_the_scores_of_estimate(rng):
    answered = complete(rng)
    scores = estimator_scores(feature_tables({"a": answered, "b": answered}, estimators="all"))
    expected = estimate(answered, "all").drop(columns=[*IDENTIFIERS])
    assert [*scores] == [*expected]
    for half in (scores[:24], scores[24:]):
        np.testing.assert_array_equal(half, expected)
    signed = uncertainties(scores)
    np.testing.assert_array_equal(signed["perplexity"], scores["perplexity"])
    np.testing.assert_array_equal(signed["fisher_rao"], -scores["fisher_rao"])


def test_each_repeated_estimator_and_no_other_is_a_linear_function_of_features(rng):
    tables = feature_tables({"a": complete(rng, 150), "b": complete(rng, 150, steps=5)}, estimators="all")
    scores = estimator_scores(tables)
    assert {*scores} >= {*feature_estimators()} - {
        name for name, each in known_estimators().items() if each.passes != "one"
    }
    features = tables.answer_features.to_numpy(float)
    design = np.column_stack([np.ones(len(features)), features])
    explained = {}
    for name in scores:
        values = scores[name].to_numpy(float)
        rest = values - design @ np.linalg.lstsq(design, values, rcond=None)[0]
        explained[name] = np.ptp(values) > 0 and rest.std() < 1e-5 * values.std()
    assert {name for name, is_linear in explained.items() if is_linear} == REPEATED


def test_features_need_no_label_and_no_other_prompt():
    for name in feature_estimators():
        each = known_estimators()[name]
        assert each.passes in ("one", "samples") and "labels" not in each.inputs
    assert not {*feature_estimators()} & (REPEATED | NEVER_FEATURES)
    assert {*REPEATED, *NEVER_FEATURES} <= {*known_estimators()}


def test_estimators_of_one_pass_and_of_samples_are_features_and_baselines(sampled, tmp_path):
    answered, _, confidence, result = sampled
    frame = result.tables["answers"].frame.set_index("score")
    assert {"rauq", "p90_entropy", "semantic_entropy", "lookback_lens", "length"} <= {*frame.index}
    assert frame.loc["rauq", "what"] == known_estimators()["rauq"].formula
    features = {*confidence.answers.features}
    assert {"rauq", "renyi_neg", "least_top1_prob", "semantic_entropy", "entropy.mean"} <= features
    assert not features & {"lookback_lens", "length", *REPEATED}
    save(confidence, tmp_path, {})
    for got, want in zip(load(tmp_path).apply(answered), confidence.apply(answered), strict=True):
        np.testing.assert_array_equal(got, want)


def test_applying_names_the_option_that_records_what_is_missing(sampled, rng):
    confidence = sampled[2]
    with pytest.raises(LackingError, match="has one answer to each prompt; trace it again with --samples 10"):
        confidence.apply(complete(rng, 3))
    single = answers(rng, 3, samples=2, groups=("output",))
    with pytest.raises(LackingError, match="trace it again with --probes that include attention"):
        confidence.apply(single)


def test_estimators_that_score_some_answers_only_are_excluded(sampled, rng):
    answered = sampled[0]
    lone = dataclasses.replace(complete(rng, 1).rows[0])
    rows = [*answered.rows, dataclasses.replace(lone, prompt=dataclasses.replace(lone.prompt, text="?", id="lone"))]
    mixed = trace(rows, layers=4, heads=2, alphas=answered.info["alphas"], vocab_size=VOCAB)
    tables = feature_tables({"m": mixed}, estimators="all")
    labels = np.append(np.arange(len(rows) - 1) // 4 % 2, 1.0)
    scores, notes = complete_scores(tables, labels, None)
    assert "rauq" in scores and "semantic_entropy" not in scores
    assert "do not score every labelled answer are excluded" in notes[0]
    unlabelled = np.append(labels[:-1], np.nan)
    assert "semantic_entropy" in complete_scores(tables, unlabelled, None)[0]


def test_estimators_that_learn_from_labels_are_excluded_with_groups(sampled):
    answered, labels = sampled[:2]
    for row in answered.rows:
        row.prompt.meta["name"] = row.prompt.text
    frame = train({"m": answered}, labels, GROUPED)[1]
    assert "lookback_lens" not in {*frame.tables["answers"].frame["score"]}
    assert any("learn from labels are excluded with --group" in note for note in frame.notes)


def test_given_text_is_scored_without_its_last_step(rng):
    answered = complete(rng, 4)
    for row in answered.rows:
        row.metrics["logprob"][-1] = np.nan
    given = dataclasses.replace(answered, info=answered.info | {"mode": "score"})
    tables = feature_tables({"m": given}, estimators=["perplexity"])
    assert tables.answers["length"].tolist() == [3] * 4
    expected = [-row.metrics["logprob"][:3].mean() for row in answered.rows]
    np.testing.assert_allclose(estimator_scores(tables, ["perplexity"])["perplexity"], expected, rtol=1e-6)


def test_a_users_estimator_is_a_feature_while_it_is_known(sampled, tmp_path, monkeypatch):
    (answered, labels), built_in = sampled[:2], known_estimators()

    def named(name):
        own = Estimator(name, lambda one: Scores(np.arange(len(one.rows)) ** 2.0), "row²", "", (), "one", True, (), ())
        monkeypatch.setattr(ESTIMATORS, "all", lambda: built_in | {name: own})
        monkeypatch.setattr(ESTIMATORS, "find", ESTIMATORS.all().get)

    named("squared")
    confidence, _ = train({"m": answered}, labels, QUICK)
    assert "squared" in confidence.answers.features
    save(confidence, tmp_path, {})
    named("mlp")
    with pytest.raises(StudyError, match="an estimator is named 'mlp', as a trained score is; rename it"):
        train({"m": answered}, labels, QUICK)
    monkeypatch.undo()
    with pytest.raises(StudyError, match="'squared' is not a feature of this jaxtrace and its plug-ins"):
        load(tmp_path)
    with pytest.raises(ConfigError, match="no estimator 'squared'"):
        confidence.apply(answered)
