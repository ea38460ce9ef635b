"""Ablated layers: answers against a model without them, sets of layers, and the study of hand-made answers."""

import dataclasses

import numpy as np
import pytest
from tokenizers import Tokenizer as Backend
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit

from jaxtrace import Interventions, Prompt, StudyError
from jaxtrace.checkpoints.embedded import demo_path
from jaxtrace.checkpoints.tokenizer import Tokenizer
from jaxtrace.compilation import counted
from jaxtrace.figures.theme import LIGHT
from jaxtrace.grading.choices import ChoiceAnswers, ChoiceQuestion, answer_questions, choice_questions
from jaxtrace.model import Model
from jaxtrace.models.forward import forward_logits
from jaxtrace.studies.interventions.compute import (
    Ablation,
    ModelAblations,
    chosen_sets,
    interventions,
    measure_interventions,
)
from jaxtrace.studies.interventions.settings import InterventionsConfig
from jaxtrace.tasks import load_task
from tests import oracle
from tests.engine.conftest import CONFIG

WORDS = ["?", "Which?", "A", "B", "A.", "x", "B.", "y", "Answer:", "the", "one", "other"]


@pytest.fixture(scope="module")
def questions():
    """Return questions of unequal lengths with two to four options."""
    rng = np.random.default_rng(0)
    made = []
    for number, (length, options) in enumerate(zip(rng.integers(2, 15, 12), [2, 3, 4] * 4, strict=True)):
        tokens, chosen = (
            rng.integers(0, CONFIG.vocab_size, length),
            rng.permutation(CONFIG.vocab_size)[:options].tolist(),
        )
        made.append(ChoiceQuestion(Prompt(id=str(number)), np.int32(tokens), tuple(chosen), int(rng.integers(options))))
    return made


def test_batched_answers_match_one_question_at_a_time(model, questions):
    layers = (1, 3)
    questions = questions[:11]  # the last batch is partial
    found = answer_questions(model, questions, Interventions.of(CONFIG, layers), batch_size=4)
    blocks = [block for i, block in enumerate(model.params["layers"], 1) if i not in layers]
    short = CONFIG.__class__(**{**vars(CONFIG), "num_layers": len(blocks)})  # the model without the ablated layers
    for i, question in enumerate(questions):
        padded = np.zeros((1, 16), np.int32)
        padded[0, : len(question.tokens)] = question.tokens
        logits = np.asarray(forward_logits(short, {**model.params, "layers": blocks}, padded), np.float64)
        logits = logits[0, len(question.tokens) - 1]
        options = logits[[*question.options]]
        assert found.correct[i] == (options.argmax() == question.answer)
        np.testing.assert_allclose(found.option_entropy[i], oracle.entropy(options), atol=1e-4)
        np.testing.assert_allclose(found.entropy[i], oracle.entropy(logits), atol=1e-4)


def test_chosen_sets_are_ranked_or_random():
    config = InterventionsConfig(counts=(1, 2, 4), draws=3)
    sets = list(chosen_sets(np.array([2.0, -0.3, 0.5, -1.0, 0.1]), config))
    found = {(kind, edges, len(layers)): layers for kind, edges, layers in sets if kind != "random"}
    assert found["expansion", True, 2] == (1, 3) and found["pruning", True, 2] == (2, 4)
    assert found["expansion", False, 1] == (3,) and found["pruning", False, 2] == (2, 4)
    assert ("expansion", False, 4) not in found and found["pruning", True, 4] == (2, 3, 4, 5)
    random = [(edges, layers) for kind, edges, layers in sets if kind == "random"]
    assert len(random) == 3 * 3 + 2 * 3
    for edges, layers in random:
        assert len(set(layers)) == len(layers) and {*layers} <= ({1, 2, 3, 4, 5} if edges else {2, 3, 4})


def test_all_sets_of_layers_share_one_program(model, questions):
    config = InterventionsConfig(counts=(1, 2), draws=4, held_out=0.25, batch_size=4)
    answer_questions(model, questions, Interventions.of(CONFIG), config.batch_size)
    seen = []
    measured = measure_interventions(model, questions, config, lambda *counts: seen.append(counts))
    assert measured.held_out == 3 and measured.expansion.shape == (CONFIG.num_layers,)
    assert measured.whole.correct.shape == (9,) and seen[-1][0] == seen[-1][1] and seen[0] == (3, 3)
    assert {one.layers for one in measured.ablations if not one.edges} == {(2,)}  # of three layers
    order = np.random.default_rng(0).permutation(12)
    rest = [questions[i] for i in order[3:]]
    with counted() as compiled:
        for one in measured.ablations[:3]:
            again = answer_questions(model, rest, Interventions.of(CONFIG, one.layers), config.batch_size)
            np.testing.assert_array_equal(one.answers.correct, again.correct)
            np.testing.assert_array_equal(one.answers.entropy, again.entropy)
    assert compiled.programs == 0  # every choice of layers is one program
    assert 0.25 < measured.chance < 0.5


def test_an_interrupted_study_resumes(model, questions, tmp_path, monkeypatch):
    config = InterventionsConfig(counts=(1,), draws=2, held_out=0.25, batch_size=4)

    def stop(number, count):
        if number > 3 * 9:  # in the fourth set of layers, for 9 questions each
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure_interventions(model, questions, config, stop, tmp_path)
    assert len(list(tmp_path.iterdir())) == 3
    asked = []

    def asking(*arguments):
        asked.append(arguments)
        return answer_questions(*arguments)

    monkeypatch.setattr("jaxtrace.studies.interventions.compute.answer_questions", asking)
    measured, alone = (measure_interventions(model, questions, config, folder=folder) for folder in (tmp_path, None))
    sets = {one.layers for one in alone.ablations} | {()}
    assert len(asked) == len(sets) - 3 + len(sets)
    for one, other in zip(measured.ablations, alone.ablations, strict=True):
        for name in ("correct", "option_entropy", "entropy"):
            np.testing.assert_array_equal(getattr(one.answers, name), getattr(other.answers, name))
    asked.clear()
    measure_interventions(model, questions[1:], config, folder=tmp_path)  # other questions: the cache does not apply
    assert len(asked) == len(sets)


def answers(correct, seed=0):
    rng = np.random.default_rng(seed)
    return ChoiceAnswers(np.array(correct, bool), rng.random(len(correct)), rng.random(len(correct)))


def test_accuracy_and_comparisons():
    """The whole model answers all 40 questions; without layer 3 it misses half, without another layer a quarter."""
    whole, half, quarter = [True] * 40, [True, False] * 20, [True, True, True, False] * 10
    of_layer = {2: quarter, 3: half, 4: quarter}
    ablations = [Ablation("expansion", False, (3,), answers(half)), Ablation("pruning", False, (2,), answers(quarter))]
    ablations += [Ablation("random", False, (i,), answers(of_layer[i])) for i in (2, 4, 4, 3)]
    measured = ModelAblations(
        np.array([1.0, -1, 2, 0.5, -2]), 10, 0.25, answers(whole), tuple(ablations), tuple("q" * 40)
    )
    result = interventions({"made": measured}, InterventionsConfig(counts=(1,), draws=4))
    accuracy, comparisons = (result.tables[name].frame for name in ("accuracy", "comparisons"))
    of_questions = result.tables["questions"].frame
    assert of_questions.groupby("kind")["correct"].mean().round(4).to_dict() == {
        "expansion": 0.5,
        "none": 1.0,
        "pruning": 0.75,
        "random": 0.6875,
    }
    assert len(of_questions) == 4 * 40
    by_kind = accuracy.set_index("kind").accuracy
    np.testing.assert_allclose(by_kind[["none", "expansion", "pruning", "random"]], [1, 0.5, 0.75, 0.6875])
    random = accuracy.set_index("kind").loc["random"]
    assert random.sets == 3 and random.n == 40
    np.testing.assert_allclose(random.sd, np.std([0.75, 0.75, 0.75, 0.5]))
    found = comparisons.set_index(["kind", "against"])
    np.testing.assert_allclose(found.loc[("expansion", "none"), "difference"], -0.5)
    assert found.loc[("expansion", "none"), "difference_high"] < -0.3 and found.loc[("expansion", "none"), "p"] < 0.01
    np.testing.assert_allclose(found.loc[("expansion", "random"), "difference"], -0.1875)
    np.testing.assert_allclose(found.loc[("pruning", "random"), "difference"], 0.0625)
    assert set(found.index) == {
        *((kind, other) for kind in ("expansion", "pruning") for other in ("none", "random")),
        ("random", "none"),
    }
    assert len(result.pictures["accuracy"].draw(LIGHT).axes) == 2


def reader(tokenizer=None):
    """A model with a tokenizer alone, by default one of whole words."""
    backend = Backend(WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="?"))
    backend.pre_tokenizer = WhitespaceSplit()
    config = dataclasses.replace(CONFIG, vocab_size=5000)
    return Model("reader", config, {}, tokenizer or Tokenizer(backend))


def test_options_are_letters_or_choices():
    prompt = Prompt(text="Which? A. x B. y Answer:", id="p", meta={"choices": ["x", "y"], "answer": "B"})
    (question,) = choice_questions(reader(), [prompt])
    assert question.options == (WORDS.index("A"), WORDS.index("B")) and question.answer == 1
    (question,) = choice_questions(reader(), [prompt], "choice")
    assert question.options == (WORDS.index("x"), WORDS.index("y"))


def test_options_are_first_tokens_of_choices():
    tokenizer = Tokenizer.load(demo_path())
    prompts = load_task("lab-choices", limit=50)
    for prompt, question in zip(prompts, choice_questions(reader(tokenizer), prompts, "choice"), strict=True):
        choices = prompt.meta["choices"]
        assert len(choices) == 4 == len(set(question.options))
        pieces = [tokenizer.decode(np.array([token])).strip() for token in question.options]
        assert all(choice.startswith(piece) for choice, piece in zip(choices, pieces, strict=True))
        assert prompt.meta["answer"] == "ABCD"[question.answer]
    with pytest.raises(StudyError, match="' A' is no token of the model's"):
        choice_questions(reader(tokenizer), prompts)


@pytest.mark.parametrize(
    ("meta", "message"),
    [
        ({"answer": "A"}, "prompt p: has no list of choices"),
        ({"choices": ["x", "y"], "answer": "C"}, "prompt p: .* no answer by its letter"),
        ({"choices": ["the one", "the other"], "answer": "A"}, "prompt p: two options begin with the same token"),
    ],
)
def test_prompts_without_choices_are_refused(meta, message):
    with pytest.raises(StudyError, match=message):
        choice_questions(reader(), [Prompt(text="Which?", id="p", meta=meta)], "choice")


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"held_out": 0.01}, "12 questions of which 0 are held out"), ({"counts": (4,)}, "numbers of layers from 1 to 3")],
)
def test_unusable_settings_are_refused(model, questions, changes, message):
    with pytest.raises(StudyError, match=message):
        measure_interventions(model, questions, InterventionsConfig(**changes))
