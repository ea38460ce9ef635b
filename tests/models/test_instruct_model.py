"""SmolLM2-135M-Instruct against transformers (eager, float32): prompts, greedy answers, metrics of real questions."""

import copy

import numpy as np
import pytest
from scipy.special import entr

import jaxtrace
from jaxtrace.tasks import load_task
from tests.engine.reference import assert_metrics, metrics
from tests.models import hugging_face

pytestmark = pytest.mark.nightly  # test_real_checkpoints.py has small real models

TOKENS = 40
GAP = 1e-3  # two logits this near may change places: the sums differ in their last digits


@pytest.fixture(scope="module")
def reference(smollm2):
    return hugging_face.load(smollm2)


@pytest.fixture(scope="module")
def model(smollm2):
    return jaxtrace.load(str(smollm2), mesh=None)


@pytest.fixture(scope="module")
def questions(shared_data):
    return [prompt.text for prompt in load_task("truthfulqa", shared_data / "truthfulqa" / "TruthfulQA.csv", 20)]


@pytest.mark.parametrize("count", [1, 20])
def test_answers_to_questions_are_those_of_transformers(count, model, reference, questions, smollm2):
    import transformers

    rows = model.generate(
        questions[:count], max_new_tokens=TOKENS, probes=jaxtrace.Probes.of("output"), batch_size=count
    ).rows
    template = transformers.AutoTokenizer.from_pretrained(smollm2)
    for question, row in zip(questions, rows, strict=False):
        turns = [{"role": "user", "content": question}]
        rendered = template.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
        assert row.prompt_tokens.tolist() == encoded(smollm2, rendered)
        drawn = row.metrics["token"]
        run = hugging_face.run(reference, [*row.prompt_tokens.tolist(), *drawn.tolist()])
        logits = run.logits[len(row.prompt_tokens) - 1 : -1]
        different = np.flatnonzero(logits.argmax(axis=-1) != drawn)
        if len(different):
            second, first = np.sort(logits[different[0]])[-2:]
            assert first - second < GAP, f"{question!r}, token {different[0]}"


def test_every_step_agrees_with_transformers(model, reference, questions):
    """Within the usual bounds, and twice the error that float32 has in transformers itself."""
    row = model.generate(questions[:1], max_new_tokens=8).rows[0]
    drawn = row.metrics["token"]
    tokens = [*row.prompt_tokens.tolist(), *drawn.tolist()]
    steps = slice(len(row.prompt_tokens) - 1, -1)

    def expected(run):
        of_run = metrics(run, np.array([*tokens[1:], -1]), prompt_length=len(row.prompt_tokens))
        return {name: x[steps] for name, x in of_run.items()}

    single, double = hugging_face.run(reference, tokens), hugging_face.run(copy.deepcopy(reference).double(), tokens)
    np.testing.assert_array_equal(drawn, single.logits[steps].argmax(axis=-1))
    want, exact = expected(single), expected(double)
    errors = {name: np.nanmax(np.abs(want[name] - exact[name])) for name in want if name != "lens_top1"}
    assert_metrics(row.metrics, exact, double.lens_logits[steps], errors)


def test_attention_entropy_is_within_the_stated_bound(model, reference, questions):
    """On real weights float32 alone errs by more than 1e-5: the bound adds twice the error of transformers' float32."""
    row = model.score([" ".join(questions[:12])], probes=jaxtrace.Probes.of("attention")).rows[0]
    runs = (
        hugging_face.run(which, row.prompt_tokens.tolist()) for which in (reference, copy.deepcopy(reference).double())
    )
    single, double = (entr(np.asarray(run.attention, np.float64)).sum(axis=-1) for run in runs)
    own, error = np.abs(row.metrics["attention_entropy"] - double).max(), np.abs(single - double).max()
    assert 0 < error < 1e-3 and own <= 1e-5 + 2 * error, f"{own:.2e} and {error:.2e}"


def encoded(directory, text):
    import tokenizers

    tokenizer = tokenizers.Tokenizer.from_file(str(directory / "tokenizer.json"))
    return tokenizer.encode(text, add_special_tokens=False).ids
