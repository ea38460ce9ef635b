"""Batching, padding and chunking do not change the metrics."""

import dataclasses

import numpy as np
import pytest

from jaxtrace import Probes, Sample
from jaxtrace.engine import buckets
from jaxtrace.engine.settings import Settings
from tests.engine.reference import assert_same, at

STEPS = 20
SAMPLE = Sample(temperature=1.3, top_p=0.95)
PROBES = Probes.of("output", "attention", "hidden")  # groups that depend on the cache or on the state
DRAWN = Settings(PROBES, max_new_tokens=STEPS, sampler=SAMPLE, seed=7)


def rows(model, prompts, settings, numbers=None):
    batches = model.generate_rows(model.encode(prompts, chat=False), settings, numbers=numbers)
    return [row.metrics for batch in batches for _, row in batch]


def assert_rows(got, want):
    for one, other in zip(got, want, strict=True):
        assert_same(one, other)


@pytest.fixture(scope="module")
def sampled(model, prompts):
    return rows(model, prompts, DRAWN)


def test_row_draws_the_same_alone_and_in_a_batch(model, prompts, sampled):
    alone = [rows(model, [prompt], DRAWN, numbers=[i])[0] for i, prompt in enumerate(prompts)]
    assert_rows(alone, sampled)


def test_partial_batches_other_chunk_lengths_and_larger_caches_change_nothing(model, prompts, sampled):
    """60 more tokens need 128 slots; the context of 96 ends one row early."""
    settings = dataclasses.replace(DRAWN, batch_size=3, steps=7, max_new_tokens=60)
    longer = rows(model, prompts, settings)
    assert [len(row["token"]) for row in longer] == [60, 60, 57, 60]
    assert_rows([at(row, slice(STEPS)) for row in longer], sampled)


def test_narrow_prefill_chunks_change_nothing(model, prompts, sampled, monkeypatch):
    monkeypatch.setattr(buckets, "CHUNK_WIDTHS", (16,))
    assert_rows(rows(model, prompts, DRAWN), sampled)


def test_seeds_decide_the_draws(model, prompts, sampled):
    settings = dataclasses.replace(DRAWN, probes=Probes.none())
    again = rows(model, prompts, settings)
    other = rows(model, prompts, dataclasses.replace(settings, seed=8))
    for one, same, different in zip(sampled, again, other, strict=True):
        np.testing.assert_array_equal(one["token"], same["token"])
        assert (one["token"] != different["token"]).any()


def test_equal_prompts_in_a_batch_draw_differently(model, prompts):
    settings = dataclasses.replace(DRAWN, probes=Probes.none())
    first, second, *_ = rows(model, [prompts[0]] * 4, settings)
    assert (first["token"] != second["token"]).any()


def test_text_scores_the_same_alone_and_in_a_batch(model, prompts, scored, monkeypatch):
    monkeypatch.setattr(buckets, "CHUNK_WIDTHS", (64,))
    for row, prompt in zip(scored.rows, prompts, strict=True):
        assert_same(model.score([prompt]).rows[0].metrics, row.metrics)


def test_narrow_chunks_and_small_batches_score_the_same(model, prompts, scored, monkeypatch):
    monkeypatch.setattr(buckets, "CHUNK_WIDTHS", (16,))
    narrow = model.score(prompts, batch_size=3).rows
    assert_rows([row.metrics for row in narrow], [row.metrics for row in scored.rows])


def test_chunk_widths_cover_the_positions():
    assert buckets.chunk_widths(0) == []
    assert buckets.chunk_widths(1) == [16]
    assert buckets.chunk_widths(256) == [256]
    assert buckets.chunk_widths(600) == [256, 256, 128]


def test_cache_slots_double_up_to_the_context():
    sizes = [buckets.cache_slots(positions, context=1100) for positions in (1, 64, 65, 500, 1000, 1025, 1100)]
    assert sizes == [64, 64, 128, 512, 1024, 1152, 1152]
    assert buckets.cache_slots(6, context=6) == 16


def test_best_width_avoids_padding():
    remaining = np.array([500, 500, 30, 500])
    assert buckets.best_width(remaining, room=512) == 256
    assert buckets.best_width(remaining, room=100) == 64
    assert buckets.best_width(np.array([16, 0, 7, 10]), room=512) == 16
    assert buckets.best_width(np.array([3, 0, 0, 250]), room=512) == 256


@pytest.mark.parametrize("verb", ["generate", "score"])
def test_progress_counts_prompts_tokens_and_entropy(verb, model, prompts, generated, scored):
    calls = []
    options = {"max_new_tokens": STEPS} if verb == "generate" else {}
    getattr(model, verb)(prompts, on_progress=lambda *counts: calls.append(counts), **options)
    rows = (generated if verb == "generate" else scored).rows
    finished, tokens, entropy = np.array(calls).sum(axis=0)
    assert finished == len(prompts)
    assert tokens == sum(row.length for row in rows)
    np.testing.assert_allclose(entropy, sum(row.metrics["entropy"].sum() for row in rows), rtol=1e-5)
