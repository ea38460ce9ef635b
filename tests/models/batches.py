"""Batches of unequal prompts, fed in pieces and refilled, against each prompt alone in transformers."""

import numpy as np

from jaxtrace import Probes
from jaxtrace.engine import buckets
from tests.engine.reference import assert_metrics, at, metrics
from tests.models.parity import windows

LENGTHS = (9, 1, 40, 15, 17)  # the third is fed in pieces
STEPS = 12
PROBES = Probes(attention_rows=((1, 1), (2, 3)), prompt_positions=True)


def assert_batch_parity(model, run, rng, monkeypatch):
    """Assert that a generated batch, and its texts scored at once, agree with `run(text, prompt)` of transformers."""
    visible = windows(model.config)
    prompts = [rng.integers(0, model.config.vocab_size, size).tolist() for size in LENGTHS]
    with monkeypatch.context() as patch:
        patch.setattr(buckets, "CHUNK_WIDTHS", (16,))
        trace = model.generate(prompts, max_new_tokens=STEPS, probes=PROBES, batch_size=3, stop_tokens=())
        texts = [[prompt[0], *row.metrics["token"].tolist()] for prompt, row in zip(prompts, trace.rows, strict=True)]
        sizes = [len(prompt) // 2 for prompt in prompts]
        scored = model.score(texts, batch_size=3, prompt_lengths=sizes).rows
    for text, size, row, whole in zip(texts, sizes, trace.rows, scored, strict=True):
        stepwise = run(text, len(row.prompt_tokens))
        expected = metrics(stepwise, np.roll(text, -1), windows=visible, prompt_length=len(row.prompt_tokens))
        raw = row.metrics["attention_rows"]
        got = {metric: values for metric, values in row.metrics.items() if metric != "attention_rows"}
        assert_metrics(got, at(expected, slice(0, -1)), stepwise.lens_logits[:-1])
        for i, (layer, head) in enumerate(PROBES.attention_rows):
            weights = np.nan_to_num(raw[:, i, : len(text)])
            np.testing.assert_allclose(weights, stepwise.attention[:-1, layer - 1, head, : weights.shape[1]], atol=1e-5)
        at_once = run(text, None)
        expected = metrics(at_once, np.append(text[1:], -1), windows=visible, prompt_length=size)
        assert_metrics(whole.metrics, expected, at_once.lens_logits)
