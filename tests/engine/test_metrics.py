"""Every metric of a trace against a float64 model and the float64 definitions."""

import numpy as np
import pytest

from jaxtrace import Probes
from jaxtrace.errors import PromptError
from tests.engine import float64_llama
from tests.engine.reference import assert_metrics, assert_same, at, metrics


def test_scored_metrics_equal_the_oracle(scored, prompts, model):
    for row, tokens in zip(scored.rows, prompts, strict=True):
        run = float64_llama.run(model.config, model.params, tokens)
        want = metrics(run, np.array([*tokens[1:], -1]))
        assert_metrics(row.metrics, want, run.lens_logits)


@pytest.mark.parametrize("layout", ["unrolled", "stacked"])
def test_generated_metrics_equal_the_oracle(layout, prompts, model, request):
    if layout == "unrolled":
        trace = request.getfixturevalue("generated")
    else:
        trace = request.getfixturevalue("stacked").generate(prompts, max_new_tokens=20)
    for row, tokens in zip(trace.rows, prompts, strict=True):
        drawn = row.metrics["token"]
        assert len(drawn) == 20
        run = float64_llama.run(model.config, model.params, [*tokens, *drawn[:-1]])
        np.testing.assert_array_equal(drawn, run.logits.argmax(axis=-1)[len(tokens) - 1 :])
        want = metrics(run, np.array([*tokens[1:], *drawn]), prompt_length=len(tokens))
        want = at(want, slice(len(tokens) - 1, None))
        assert_metrics(row.metrics, want, run.lens_logits[len(tokens) - 1 :])


def test_generated_metrics_equal_scored_metrics(model, generated):
    texts = [[*row.prompt_tokens, *row.metrics["token"]] for row in generated.rows]
    prompts = [len(row.prompt_tokens) for row in generated.rows]
    for row, again in zip(generated.rows, model.score(texts, prompt_lengths=prompts).rows, strict=True):
        assert_same(row.metrics, at(again.metrics, slice(len(row.prompt_tokens) - 1, -1)))


@pytest.mark.parametrize(
    ("sizes", "reason"),
    [
        ([2], "prompt_lengths has 1 entries for 2 texts; give one for each"),
        ([2, 4], "prompt_lengths: entry 1 is 4; text 1 has 3 tokens"),
        ([-1, 2], "prompt_lengths: entry 0 is -1; text 0 has 5 tokens"),
        ([2, 1.5], "prompt_lengths: entry 1 is 1.5; text 1 has 3 tokens, so give a whole number from 0 to 3"),
        ([None, 2], "prompt_lengths: entry 0 is None; text 0 has 5 tokens"),
    ],
)
def test_prompts_that_are_not_a_part_of_their_text_are_refused(model, sizes, reason):
    with pytest.raises(PromptError, match=reason):
        model.score([[1, 2, 3, 4, 5], [1, 2, 3]], prompt_lengths=sizes)


def test_last_layer_of_the_lens_equals_the_output(generated, scored):
    for row in [*generated.rows, *scored.rows]:
        metrics = row.metrics
        for name in ("entropy", "varentropy", "top1_prob"):
            np.testing.assert_array_equal(metrics[f"lens_{name}"][:, -1], metrics[name])
        np.testing.assert_array_equal(metrics["lens_kl"][:, -1], 0)


def test_renyi_entropies_of_chosen_orders(model, prompts):
    alphas = (0.0, 1.0, 3.0, float("inf"))
    probes = Probes.of("output", alphas=alphas)
    row = model.score(prompts[:1], probes=probes).rows[0]
    run = float64_llama.run(model.config, model.params, prompts[0])
    want = metrics(run, np.array([*prompts[0][1:], -1]), alphas)["renyi"]
    np.testing.assert_allclose(row.metrics["renyi"], want, rtol=0, atol=1e-5)
