"""Start tokens: as the tokenizer puts them, exactly one, or none (--bos)."""

import json
import shutil

import pytest
from tokenizers import Tokenizer as Backend
from tokenizers import models, pre_tokenizers, processors

import jaxtrace as jt
from jaxtrace.checkpoints.chat_template import ChatTemplate
from jaxtrace.checkpoints.embedded import demo_path
from jaxtrace.checkpoints.tokenizer import Tokenizer
from jaxtrace.errors import PromptError
from jaxtrace.grading.choices import choice_questions
from jaxtrace.prompts import Prompt
from jaxtrace.settings.prompt import PromptSettings
from jaxtrace.studies._shared.traces import start_mode
from jaxtrace.studies.dynamics.multiple_choice import continuation
from jaxtrace.studies.registry import known_studies
from tests.commands import run_command

BOS, TURN, IMAGE, HI, THERE, ANSWER = range(6)
WORDS = {"<s>": BOS, "<turn>": TURN, "<img>": IMAGE, "hi": HI, "there": THERE, "answer": ANSWER}
CHAT = "{{% for m in messages %}}{turn} {{{{ m.content }}}} {{% endfor %}}{turn} "


def tokenizer(*, adds=False, bos="<s>", template=None):
    """A tokenizer of six words that adds a start token or not."""
    backend = Backend(models.WordLevel(WORDS, unk_token="answer"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.add_special_tokens(["<s>", "<turn>", "<img>"])
    if adds:
        backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", BOS)])
    special = {} if bos is None else {"bos_token": bos}
    return Tokenizer(backend, special, template and ChatTemplate(template))


def encoded(tokenizer, text, bos, **fields):
    encoded = tokenizer.encode_prompt(Prompt(text=text), PromptSettings(bos=bos, **fields))
    assert not encoded.ends or len(encoded.ends) == len(encoded.ids)
    return encoded.ids, encoded.start


@pytest.mark.parametrize("text", ["hi there", "<s> hi there", "<s> <s> hi there"])
@pytest.mark.parametrize("adds", [True, False])
def test_always_feeds_one_start_token_and_never_none(text, adds):
    of = tokenizer(adds=adds)
    origin = "tokenizer" if adds else "text" if "<s>" in text else "setting"
    assert encoded(of, text, "always") == ([BOS, HI, THERE], origin)
    assert encoded(of, text, "never") == ([HI, THERE], "none")


def test_auto_leaves_the_choice_to_the_tokenizer():
    assert encoded(tokenizer(adds=True), "hi", "auto") == ([BOS, HI], "tokenizer")
    assert encoded(tokenizer(), "hi", "auto") == ([HI], "none")
    assert encoded(tokenizer(), "<s> <s> hi", "auto") == ([BOS, BOS, HI], "text")


def test_a_start_token_that_only_the_tokenizer_knows_is_dropped():
    assert encoded(tokenizer(adds=True, bos=None), "hi", "never") == ([HI], "none")
    assert encoded(tokenizer(adds=True, bos=None), "hi", "always") == ([BOS, HI], "tokenizer")


def test_always_needs_a_start_token():
    for of in (tokenizer(bos=None), tokenizer(bos="<none>")):
        with pytest.raises(PromptError, match="'always', and the tokenizer has no start token; use bos 'auto'"):
            encoded(of, "hi", "always")
        assert encoded(of, "hi", "never") == ([HI], "none")


def test_a_prefix_follows_the_text():
    assert encoded(tokenizer(), "hi", "always", prefix=" answer") == ([BOS, HI, ANSWER], "setting")


def test_a_chat_begins_with_one_start_token_or_none():
    writes = tokenizer(template="{{ bos_token }} " + CHAT.format(turn="<turn>"))
    omits = tokenizer(template=CHAT.format(turn="<turn>"))
    chat = [TURN, HI, TURN]
    for of, auto in ((writes, [BOS, *chat]), (omits, chat)):
        assert encoded(of, "hi", "auto")[0] == auto
        assert encoded(of, "hi", "always") == ([BOS, *chat], "template" if of is writes else "setting")
        assert encoded(of, "hi", "never") == (chat, "none")
    assert not writes.encode_prompt(Prompt(text="hi"), PromptSettings(bos="never")).text.startswith("<s>")


def test_a_template_that_marks_turns_with_the_start_token_keeps_it():
    of = tokenizer(template=CHAT.format(turn="<s>"))
    assert encoded(of, "hi", "always")[0] == [BOS, HI, BOS]
    with pytest.raises(PromptError, match="'never', and the chat template marks turns with the start token '<s>'"):
        encoded(of, "hi", "never")
    assert encoded(of, "hi", "never", raw=True)[0] == [HI]


@pytest.mark.parametrize(("bos", "ids"), [("always", [IMAGE, BOS, HI]), ("never", [IMAGE, HI])])
def test_the_start_token_follows_images(bos, ids):
    assert tokenizer().encode_text("<img> hi", 1, "<img>", bos=bos).ids == ids
    assert tokenizer().encode_text("<img> <s> hi", 1, "<img>", bos=bos).ids == ids


def test_the_tokens_of_a_choice_follow_the_setting():
    with_start = continuation(tokenizer(), "hi", " there", "always")
    assert with_start.tokens == (BOS, HI, THERE)
    assert with_start.is_answer == (False, False, True)


def test_generate_and_score_feed_what_the_setting_says():
    model = jt.load("demo")
    start = model.tokenizer.bos
    probes = jt.Probes.of("output")
    for bos, starts in (("always", True), ("never", False)):
        generated = model.generate(["Hi there"], max_new_tokens=1, bos=bos, probes=probes)
        for trace in (generated, model.score(["Hi there"], bos=bos, probes=probes)):
            assert trace.rows[0].prompt_tokens.tolist().count(start) == starts
            assert trace.info["prompt_format"]["bos"] == bos
    with pytest.raises(PromptError, match="is given as token ids, which bos cannot change"):
        model.generate([[5, 6]], max_new_tokens=1, bos="never")
    with pytest.raises(jt.ConfigError, match="bos"):
        model.score(["Hi"], bos="sometimes")


def test_a_run_records_the_setting(tmp_path, monkeypatch):
    monkeypatch.setattr("jaxtrace.figures.write_plots", lambda *_: [])
    run = ("trace", "demo", "--text", "Hi there", "--score", "--probes", "output", "--bos", "never", "--out", tmp_path)
    assert run_command(*run).status == 0
    trace = jt.open(tmp_path)
    assert trace.info["prompt_format"]["start_token"] == "none"
    assert start_mode(trace) == "never"


def test_every_study_takes_the_setting():
    assert [name for name, study in known_studies().items() if "bos" not in study.run_settings] == []


def test_questions_are_asked_with_the_setting():
    model = jt.load("demo")
    prompt = Prompt(text="A. yes\nB. no\nAnswer:", meta={"choices": ["yes", "no"], "answer": "A"})
    (auto,), (never,) = (
        choice_questions(model, [prompt], "choice", PromptSettings(bos=bos)) for bos in ("auto", "never")
    )
    assert auto.tokens.tolist() == [model.tokenizer.bos, *never.tokens]
    assert auto.options == never.options


def test_a_tokenizer_without_a_start_token_is_refused_in_one_line(tmp_path):
    directory = shutil.copytree(demo_path(), tmp_path / "demo")
    (directory / "special_tokens_map.json").unlink()
    for name, field in (("tokenizer.json", "post_processor"), ("tokenizer_config.json", "bos_token")):
        content = json.loads((directory / name).read_text())
        (directory / name).write_text(json.dumps(content | {field: None}))
    done = run_command("trace", directory, "--text", "Hi", "--bos", "always", "--out", tmp_path / "run")
    assert (done.status, done.err.count("\n")) == (2, 1)
    assert "prompt text-0: bos is 'always', and the tokenizer has no start token; use bos 'auto'" in done.err
