"""MC1, MC2 and MC3: readers, the start of an answer, likelihoods and scores."""

import dataclasses
import json

import jax
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, pre_tokenizers, processors

import jaxtrace as jt
from jaxtrace.checkpoints.embedded import demo_path
from jaxtrace.checkpoints.tokenizer import Tokenizer
from jaxtrace.errors import PromptError, StudyError
from jaxtrace.model import Model
from jaxtrace.studies.dynamics.multiple_choice import (
    answer_logprobs,
    choice_scores,
    choice_table,
    continuation,
    scored_choices,
    unscored_notes,
)
from jaxtrace.tasks.multiple_choice import MultipleChoice, load

SINGLE = {"Nothing happens": 1, "You grow a tree": 0}
SEVERAL = {"Nothing happens": 1, "You digest them": 1, "You grow a tree": 0}
QUESTION = "What if you eat seeds?"


@pytest.fixture
def files(tmp_path):
    """Return a folder with the same question in every file format."""
    row = {"question": QUESTION, "mc1_targets": SINGLE, "mc2_targets": SEVERAL}
    (tmp_path / "mc_task.json").write_text(json.dumps([row]), encoding="utf-8")
    (tmp_path / "entries.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    listed = {key: {"choices": list(of), "labels": list(of.values())} for key, of in row.items() if key != "question"}
    pq.write_table(pa.Table.from_pylist([{"question": QUESTION, **listed}]), tmp_path / "validation.parquet")
    header = "Type,Category,Question,Best Answer,Correct Answers,Incorrect Answers,Source"
    cells = f"A,B,{QUESTION},Nothing happens,Nothing happens; You digest them,You grow a tree,C"
    (tmp_path / "TruthfulQA.csv").write_text(f"{header}\n{cells}\n", encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize("name", ["mc_task.json", "entries.jsonl", "validation.parquet", "TruthfulQA.csv"])
def test_all_formats_hold_the_same_question(files, name):
    (one,) = load(str(files / name))
    assert one.question == QUESTION
    assert dict(one.single) == {text: bool(label) for text, label in SINGLE.items()}
    assert dict(one.several) == {text: bool(label) for text, label in SEVERAL.items()}
    assert sorted(one.answers) == sorted(SEVERAL)


def test_truthfulqa_is_read_whole(shared_data):
    folder = shared_data / "truthfulqa"
    of_json, of_csv = load(str(folder / "mc_task.json")), load(str(folder / "TruthfulQA.csv"))
    assert len(of_json) == len(of_csv) == 817
    assert {one.question for one in of_json} == {one.question for one in of_csv}
    assert all(sum(one.single.values()) == 1 for one in (*of_json, *of_csv))
    assert len(load(str(folder / "mc_task.json"), 5)) == 5


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.txt", "", "no kind of choices ends in '.txt'"),
        ("a.json", "{", "not a file such as mc_task.json"),
        ("a.json", '[{"question": "Is it?"}]', "mc1_targets"),
        ("a.json", "[]", "holds no question"),
        ("a.jsonl", '{"question": "Is it?"}', "line 1: not an entry"),
        ("a.json", '[{"question": "Q", "mc1_targets": {"a": 1}, "mc2_targets": {"a": 1}}]', "lacks a true or a false"),
        (
            "a.json",
            '[{"question": "Q", "mc1_targets": {"": 1, "b": 0}, "mc2_targets": {"a": 1, "b": 0}}]',
            "an empty text",
        ),
        ("a.csv", "Question\nIs it?\n", "lacks the column"),
    ],
)
def test_files_without_choices_are_refused(tmp_path, name, text, message):
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(PromptError, match=message):
        load(str(tmp_path / name))


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(PromptError, match="No such file"):
        load(str(tmp_path / "none.json"))


def byte_level(pairs=()):
    """Return a byte-level BPE of single bytes and some merges, with a start token."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = ["<s>", *alphabet, *("".join(pair) for pair in pairs)]
    backend = Backend(models.BPE({word: i for i, word in enumerate(words)}, list(pairs)))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.post_processor = processors.Sequence(
        [
            processors.ByteLevel(trim_offsets=False),
            processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)]),
        ]
    )
    return Tokenizer(backend)


def test_the_answer_begins_where_its_text_does():
    tokenizer = byte_level([("Ġ", "y"), ("Ġy", "e"), ("Ġye", "s")])
    split = continuation(tokenizer, "Q: ok?\nA:", " yes é")
    pieces = np.array([tokenizer.backend.id_to_token(i) for i in split.tokens])
    answer = np.array(split.is_answer)
    assert pieces[0] == "<s>" and not answer[0]
    assert pieces[answer].tolist() == ["Ġyes", "Ġ", "Ã", "©"]  # the two bytes of é
    assert "".join(pieces[~answer][1:]) == "Q:Ġok?ĊA:"
    assert list(split.tokens) == tokenizer.encode("Q: ok?\nA: yes é", chat=False)


def test_a_token_across_the_boundary_belongs_to_the_answer():
    tokenizer = byte_level([("t", "o"), ("to", "p")])
    split = continuation(tokenizer, "a t", "op")
    pieces = [tokenizer.backend.id_to_token(i) for i in split.tokens]
    assert [piece for piece, own in zip(pieces, split.is_answer, strict=True) if own] == ["top"]


@pytest.mark.parametrize("name", ["stories260K", "TinyStories-656K", "babyllama-105"])
def test_answer_tokens_spell_the_answer_with_real_tokenizers(shared_data, name):
    """Sentencepiece's space marks, byte-level BPE and single characters."""
    tokenizer = Tokenizer.load(shared_data / "checkpoints" / name)
    before, answer = "Question: what did the dog see? Answer:", " the big cat"
    split = continuation(tokenizer, before, answer)
    assert list(split.tokens) == tokenizer.encode(before + answer, chat=False)
    own = [token for token, is_answer in zip(split.tokens, split.is_answer, strict=True) if is_answer]
    rest = [token for token, is_answer in zip(split.tokens, split.is_answer, strict=True) if not is_answer]
    assert tokenizer.decode(np.array(own)).strip() == answer.strip()
    assert tokenizer.decode(np.array(rest)).strip() == before.strip()


def test_scores_match_hand_computed_values():
    """True answers have probabilities 0.2 and 0.05, false ones 0.1 and 0.15."""
    several = {"a": True, "b": True, "c": False, "d": False}
    one = MultipleChoice("?", {"a": True, "c": False, "d": False}, several)
    logprobs = dict(zip("abcd", np.log([0.2, 0.05, 0.1, 0.15]) - 900, strict=True))  # as far down as whole answers
    assert choice_scores(one, logprobs) == pytest.approx({"mc1": 1, "mc2": 0.5, "mc3": 0.5, "chance": 1 / 3})
    assert choice_scores(one, logprobs | {"c": logprobs["a"]})["mc1"] == 0  # a tie is no preference
    assert choice_scores(one, logprobs | {"b": -1.0}) == pytest.approx({"mc1": 1, "mc2": 1, "mc3": 1, "chance": 1 / 3})


@pytest.mark.parametrize("broken", "abc")
@pytest.mark.parametrize("value", [np.nan, -np.inf])
def test_a_question_with_a_non_finite_likelihood_has_no_scores(broken, value):
    one = MultipleChoice("?", {"a": True, "c": False}, {"a": True, "b": True, "c": False})
    logprobs = {"a": -1.0, "b": -2.0, "c": -3.0, broken: value}
    assert choice_scores(one, logprobs) == pytest.approx(
        {"mc1": np.nan, "mc2": np.nan, "mc3": np.nan, "chance": 0.5}, nan_ok=True
    )


def test_unscored_questions_are_counted_and_excluded():
    right = {"mc1": 1.0, "mc2": 0.8, "mc3": 0.5}
    lines = [right, dict.fromkeys(right, np.nan), dict.fromkeys(right, 0.0)]
    frame = pd.DataFrame([{"question": str(i), "chance": 0.25 * (i + 1), **line} for i, line in enumerate(lines)])
    choices = {"tiny": frame, "whole": frame.dropna()}
    table = choice_table(choices, seed=0, resamples=20).frame
    assert table[["mc1", "mc2", "mc3", "mc1_chance", "n"]].to_numpy().tolist() == [[0.5, 0.4, 0.25, 0.5, 2]] * 2
    (note,) = unscored_notes(choices)
    assert note.startswith("tiny: 1 of 3 questions have an answer whose log-probability is not finite")


@pytest.fixture(scope="module")
def model():
    """Return a small random model with the demo's tokenizer."""
    config = jt.DecoderConfig("llama", 1024, 16, 1, 2, 1, 8, 16, context=64)
    params = jax.tree.map(lambda x: x * (1 if x.ndim == 1 else 8), jt.init_params(config, jax.random.key(0)))
    return Model("tiny", config, params, Tokenizer.load(demo_path()))


QUESTIONS = [
    MultipleChoice("What is 2 + 3?", {"5.": True, "17.": False}, {"5.": True, "2 + 3 = 5.": True, "17.": False}),
    MultipleChoice("What is 4 + 4?", {"8.": True, "9.": False}, {"8.": True, "9.": False}),
]


def test_likelihoods_are_sums_over_the_answers_tokens(model):
    template = "Question: {question} Answer:"
    found = answer_logprobs(model, QUESTIONS, template=template, primer="1 + 1 = 2. ")
    texts = [f"1 + 1 = 2. Question: {one.question} Answer: {text}" for one in QUESTIONS for text in one.answers]
    begins = [text.index("Answer:") + len("Answer:") for text in texts]
    rows = model.score(texts, probes=jt.Probes.of("output")).rows
    want = []
    for text, begin, row in zip(texts, begins, rows, strict=True):
        before = len(model.tokenizer.encode(text[:begin], chat=False))
        assert row.prompt_tokens[:before].tolist() == model.tokenizer.encode(text[:begin], chat=False)
        want.append(sum(row.metrics["logprob"][position] for position in range(before - 1, row.length - 1)))
    got = [found[i][text] for i, one in enumerate(QUESTIONS) for text in one.answers]
    assert got == pytest.approx(want, rel=1e-5)
    frame = scored_choices(model, QUESTIONS, template=template, primer="1 + 1 = 2. ")
    assert frame["question"].tolist() == [one.question for one in QUESTIONS]
    for i, one in enumerate(QUESTIONS):
        assert frame.loc[i, ["mc1", "mc2", "mc3"]].tolist() == pytest.approx(
            [choice_scores(one, found[i])[name] for name in ("mc1", "mc2", "mc3")], rel=1e-5
        )


def test_a_model_without_a_tokenizer_is_refused(model):
    with pytest.raises(StudyError, match="has no tokenizer"):
        answer_logprobs(dataclasses.replace(model, tokenizer=None), QUESTIONS)
