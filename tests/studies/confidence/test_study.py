"""Training on traces whose labels are known by construction, the files, and the commands."""

import json

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file, save_file

from jaxtrace.errors import StudyError
from jaxtrace.figures.summary import trace_columns
from jaxtrace.studies._shared.page import write_study
from jaxtrace.studies.confidence.compute import train
from jaxtrace.studies.confidence.features import feature_tables
from jaxtrace.studies.confidence.files import JSON, TENSORS, load, save
from jaxtrace.studies.confidence.scores import with_estimators
from jaxtrace.studies.confidence.settings import ConfidenceConfig
from tests.cli.conftest import jaxtrace  # noqa: F401
from tests.figures.test_page import Page
from tests.studies.confidence.traces import answers, write_labels

PROMPTS = 40


@pytest.fixture(scope="module")
def known(tmp_path_factory):
    """Answers that are right if their mean entropy is low, and the confidence trained on them."""
    rng = np.random.default_rng(5)
    level = rng.permutation(np.linspace(0.2, 2.0, PROMPTS))
    answered = answers(rng, PROMPTS, entropies=level[:, None] * rng.uniform(0.9, 1.1, (PROMPTS, 3)))
    right = np.array([row.metrics["entropy"].mean() < 1.1 for row in answered.rows])
    folder = tmp_path_factory.mktemp("known")
    labels = write_labels(folder / "labels.csv", answered, right)
    answered.save(folder / "trace")
    confidence, result = train({"m": answered}, labels, ConfidenceConfig(resamples=40))
    return folder, answered, right, confidence, result


def test_training_learns_labels_that_depend_on_entropy(known):
    _, _, right, _, result = known
    frame = result.tables["answers"].frame.set_index("score")
    assert frame.loc["mean_token_entropy", "auroc"] == 1.0
    assert frame.loc["logistic", "auroc"] > 0.9
    assert frame.loc["mlp", "auroc"] > 0.9
    assert frame.loc["length", "auroc"] == 0.5  # all are equally long
    assert (frame["n"] == PROMPTS).all()
    assert frame.loc["logistic", "auroc_gain"] == pytest.approx(frame.loc["logistic", "auroc"] - 1.0)
    assert frame.loc["logistic", "risk"] < frame.loc["max_surprise_z", "risk"]
    for name in ("auroc", "auroc_gain", "auroc_same_length", "auprc", "prr", "risk", "ece"):
        assert (frame[f"{name}_low"] <= frame[f"{name}_high"]).all(), name
    tokens = result.tables["tokens"].frame
    assert set(tokens["score"]) == {"logistic", "mlp", "entropy", "surprisal", "varentropy"}
    assert (tokens["n"] == 3 * PROMPTS).all() and (tokens["groups"] == PROMPTS).all()
    assert result.tables["calibration"].frame["n"].sum() == 3 * PROMPTS
    heaviest = result.tables["weights"].frame.query("level == 'tokens'").iloc[0]
    assert heaviest["feature"] in ("entropy", "top1_prob") and abs(heaviest["weight"]) > 0.3
    assert f"{PROMPTS} of {PROMPTS} answers have a label, {right.sum()} of them are right" in result.notes[0]


def test_the_kept_classifier_tells_right_answers(known):
    _, answered, right, confidence, _ = known
    answers_, tokens = confidence.apply(answered)
    assert answers_["id"].tolist() == [row.prompt.id for row in answered.rows]
    assert ((answers_["confidence"] > 0.5) == right).mean() > 0.9
    assert answers_["out_of_range"].max() < 0.1
    features = with_estimators(feature_tables({"m": answered}, estimators="all"), confidence.answers.estimators)
    assert confidence.answers.out_of_range(1e6 * features).min() > 0.9
    assert tokens["step"].tolist() == [0, 1, 2] * PROMPTS
    rows = confidence.answer_confidences(answered)
    np.testing.assert_array_equal(rows[7].tokens, tokens.query("prompt == 7")["confidence"])
    assert rows[7].answer == answers_["confidence"][7]
    assert trace_columns(answered, rows)["confidence"].values.size == 3 * PROMPTS


def test_the_study_page_has_pictures_and_tables(known, tmp_path):
    page = write_study(known[-1], tmp_path)
    assert "risk_coverage" in {path.stem for path in tmp_path.iterdir()}
    assert "mean_token_entropy" in page.read_text(encoding="utf-8")


@pytest.mark.parametrize("keep", ["logistic", "mlp"])
def test_a_stored_confidence_gives_the_same_probabilities(known, tmp_path, keep):
    folder, answered, _, confidence, _ = known
    if keep == "mlp":
        settings = ConfidenceConfig(resamples=2, keep="mlp")
        confidence, result = train({"m": answered}, folder / "labels.csv", settings)
        assert not len(result.tables["weights"].frame)
    save(confidence, tmp_path, {"traces": ["m"]})
    for got, want in zip(load(tmp_path).apply(answered), confidence.apply(answered), strict=True):
        pd.testing.assert_frame_equal(got, want)


def test_damaged_files_are_refused(known, tmp_path):
    save(known[3], tmp_path, {})
    tensors, described = load_file(tmp_path / TENSORS), json.loads((tmp_path / JSON).read_text())
    for damage, message in (
        ({"answers.out.bias": np.full(1, np.nan, np.float32)}, "not the weights that confidence.json describes"),
        ({"answers.out.bias": np.zeros(2, np.float32)}, "not the weights"),
        ({"answers.out.bias": np.zeros(1)}, "not the weights"),
        ({"more": np.zeros(1, np.float32)}, "not the weights"),
    ):
        save_file(tensors | damage, tmp_path / TENSORS)
        with pytest.raises(StudyError, match=message):
            load(tmp_path)
    save_file(tensors, tmp_path / TENSORS)
    (tmp_path / JSON).write_text(json.dumps(described | {"format": 1}))
    load(tmp_path)
    (tmp_path / JSON).write_text(json.dumps(described | {"format": 1, "hidden": 16}))
    with pytest.raises(StudyError, match="format 1 is of a network that jaxtrace no longer computes; train it again"):
        load(tmp_path)
    for names, message in (
        (["entropy_.mean", *described["answers"][1:]], "'entropy_.mean' is not a feature of this jaxtrace"),
        (described["answers"][:-1], "not the weights that confidence.json describes"),
        ([*described["answers"], "entropy.last"], "'entropy.last' is not a feature"),
        (described["answers"][:-1] + described["answers"][:1], "a feature is named twice"),
        (["entropy"], "'entropy' is not a feature"),
        ([7], r"answers\.0: "),
    ):
        (tmp_path / JSON).write_text(json.dumps(described | {"answers": names}))
        with pytest.raises(StudyError, match=message) as error:
            load(tmp_path)
        assert "\n" not in str(error.value)
    (tmp_path / JSON).write_text(json.dumps(described))
    (tmp_path / TENSORS).write_bytes(b"nonsense")
    with pytest.raises(StudyError, match=r"confidence.safetensors: cannot be read .* train again"):
        load(tmp_path)
    (tmp_path / JSON).write_text(json.dumps(described | {"more": 1}))
    with pytest.raises(StudyError, match=r"confidence.json: does not describe a confidence \(more: .*; .* train again"):
        load(tmp_path)
    with pytest.raises(StudyError, match=r"has no confidence.json; name a directory that jaxtrace confidence train"):
        load(tmp_path / "nowhere")


def test_unusable_traces_and_labels_are_refused(known, rng, tmp_path):
    folder, answered, right, confidence, _ = known
    with pytest.raises(StudyError, match="trace it again with --probes that include output"):
        confidence.apply(answers(rng, 2, groups=("dispersion",)))
    with pytest.raises(StudyError, match="trace again with --probes that hold dispersion"):
        confidence.apply(answers(rng, 2, groups=("output",)))
    with pytest.raises(StudyError, match="lacks entropy, the baseline; trace again with --probes that include output"):
        train({"m": answers(rng, 2, groups=("dispersion",))}, folder / "labels.csv", ConfidenceConfig())
    one_class = write_labels(tmp_path / "one.csv", answered, np.ones(PROMPTS))
    with pytest.raises(StudyError, match="0 prompts, or groups of them, have an answer that is wrong"):
        train({"m": answered}, one_class, ConfidenceConfig())
    with pytest.raises(StudyError, match=f"{right.sum()} prompts, .* and there are 30 folds"):
        train({"m": answered}, folder / "labels.csv", ConfidenceConfig(folds=30))


@pytest.mark.slow
def test_commands_train_apply_and_report(known, tmp_path, jaxtrace):  # noqa: F811
    folder = known[0]
    out, settings = tmp_path / "out", ("--resamples", 2, "--keep", "logistic")
    done = jaxtrace("confidence", "train", folder / "trace", "--labels", folder / "labels.csv", "--out", out, *settings)
    assert done.status == 0, done.err
    assert "mean_token_entropy" in done.out and "have a label" in done.out
    assert len(pd.read_csv(out / "tables" / "answers.csv")) == 22
    done = jaxtrace("confidence", "apply", out, folder / "trace", "--out", tmp_path / "applied")
    assert done.status == 0 and "40 answers, 120 tokens" in done.out
    tokens = pd.read_parquet(tmp_path / "applied" / "tokens.parquet")
    assert len(tokens) == 120 and tokens["confidence"].between(0, 1).all()
    done = jaxtrace("report", folder / "trace", "--confidence", out, "--out", tmp_path / "page.html")
    assert done.status == 0, done.err
    page = Page((tmp_path / "page.html").read_text(encoding="utf-8"))
    assert page.data["scales"][0]["name"] == page.data["columns"][0]["name"] == "confidence"
    np.testing.assert_allclose(page.data["rows"][0]["values"][0], tokens["confidence"][:3], rtol=1e-3)
    assert "confidence" in page.texts["b"]
    done = jaxtrace("confidence", "apply", tmp_path, folder / "trace", "--out", tmp_path / "none")
    assert done.status == 2 and "has no confidence.json" in done.err
