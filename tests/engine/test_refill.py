"""Refilled rows: finished rows are replaced while others run, and each prompt is traced as if alone."""

import dataclasses

import jax
import numpy as np
import pytest

from jaxtrace import Dslider, Entropix, Greedy, Model, Probes, Sample, init_params
from jaxtrace.compilation import counted
from jaxtrace.engine import loop as engine
from jaxtrace.engine.settings import Settings
from jaxtrace.models.config import LayerKind
from jaxtrace.models.decoder import stack_layers
from jaxtrace.models.rope_config import Rope
from tests.engine.automaton import automaton
from tests.engine.conftest import CONFIG
from tests.engine.reference import assert_same

LONG = dataclasses.replace(CONFIG, context=700, num_layers=2)
LENGTHS = (3, 40, 1, 12, 60, 2, 5, 50, 9, 1, 33, 6)
PROBES = Probes.of("output", "attention", "hidden")
DRAWN = Settings(
    PROBES,
    batch_size=4,
    max_new_tokens=30,
    sampler=Sample(temperature=1.5),
    stop_tokens=(1, 2, 3),  # a row in twelve ends at each step
    seed=5,
    steps=8,
)
SHAPES = {
    "windows, stacked": {"num_layers": 3, "pattern": (LayerKind(window=7, rope=Rope(100.0)), LayerKind())},
    "gpt2": {
        "pattern": (LayerKind(rope=None),),
        "learned_positions": True,
        "norm": "layer",
        "gated": False,
        "qkv_bias": True,
        "output_bias": True,
        "feed_forward_bias": True,
    },
}


# GPT-2's block with the other sampler runs nightly: it compiles a second set of every program.
BOTH = ["windows, stacked", pytest.param("gpt2", marks=pytest.mark.nightly)]
SAMPLERS = {"windows, stacked": Entropix(pause=7), "gpt2": Dslider(pause=7)}


def random_model(shape):
    config = dataclasses.replace(LONG, **SHAPES.get(shape, {}))
    params = jax.tree.map(lambda x: x * (1 if x.ndim == 1 else 8), init_params(config, jax.random.key(0)))
    return Model("tiny", config, stack_layers(config, params) if "stacked" in shape else params)


@pytest.fixture(scope="module")
def model():
    return random_model("llama")


@pytest.fixture(scope="module")
def prompts():
    rng = np.random.default_rng(2)
    return [rng.integers(0, CONFIG.vocab_size, size).tolist() for size in LENGTHS]


def drawn(model, prompts, settings, numbers=None):
    batches = model.generate_rows(model.encode(prompts, chat=False), settings, numbers=numbers)
    return [row for batch in batches for _, row in batch]


@pytest.mark.parametrize("shape", BOTH)
def test_refilled_rows_draw_the_same_as_alone(shape, prompts):
    model, settings = random_model(shape), dataclasses.replace(DRAWN, sampler=SAMPLERS[shape])
    rows = drawn(model, prompts, settings)
    assert len({row.length for row in rows}) > 5
    for i in (0, 4):
        (want,) = drawn(model, prompts[i : i + 1], settings, numbers=[i])
        assert rows[i].stop == want.stop
        assert_same(rows[i].metrics, want.metrics)


@pytest.mark.parametrize("shape", BOTH)
def test_refilled_texts_score_the_same_as_alone(shape, prompts):
    model = random_model(shape)
    rows = model.score(prompts, batch_size=4, probes=PROBES).rows
    for i in (2, 4):
        assert_same(rows[i].metrics, model.score([prompts[i]], probes=PROBES).rows[0].metrics)


def test_rows_are_yielded_in_order_as_soon_as_they_finish():
    """The first prompt ends early; the second runs longest and holds back the five after it."""
    model = automaton([*range(1, 45), 0], stop_tokens=(40,))
    settings = Settings(Probes.none(), 2, max_new_tokens=60, sampler=Greedy(), stop_tokens=(40,), steps=4)
    prompts = model.encode([[30], [0], [38], [37], [36], [35], [39]], chat=False)
    batches = [[row.metrics["token"].tolist() for _, row in rows] for rows in model.generate_rows(prompts, settings)]
    want = [list(range(int(ids[-1]) + 1, 41)) for _, ids in prompts]
    assert [row for rows in batches for row in rows] == want
    assert [len(rows) for rows in batches] == [1, 6]


def test_pool_stays_full(monkeypatch):
    """Run 48 prompts of 1 to 48 tokens, eight at once; fixed batches would take as long as their longest rows."""
    computed = []
    decode_chunk = engine.decode_chunk

    def counting(*args, **options):
        results = decode_chunk(*args, **options)
        computed.append(np.asarray(results[2]))
        return results

    counting.lower = decode_chunk.lower
    monkeypatch.setattr(engine, "decode_chunk", counting)
    model = automaton([*range(1, 50), 0], stop_tokens=(49,))
    order = np.random.default_rng(0).permutation(48)
    trace = model.generate([[int(start)] for start in order], max_new_tokens=60, batch_size=8, probes=Probes.none())
    lengths = [row.length for row in trace.rows]
    assert lengths == (49 - order).tolist()
    assert sum(valid.sum() for valid in computed) == sum(lengths)
    steps = sum(valid.any(axis=1).sum() for valid in computed)
    in_batches = sum(max(lengths[at : at + 8]) for at in range(0, 48, 8))
    full = sum(lengths) / 8
    assert full < steps < full + 40 < in_batches  # 40: the last rows run out, and finished rows idle for a step


def test_many_prompt_lengths_share_few_programs(model):
    """Run prompts of fifty lengths, and then of fifty other lengths."""
    rng = np.random.default_rng(3)
    settings = dataclasses.replace(DRAWN, probes=Probes.of("output"), steps=9)  # no other test shares these programs

    def sweep(lengths):
        with counted() as count:
            drawn(model, [rng.integers(0, CONFIG.vocab_size, size).tolist() for size in lengths], settings)
        return count.programs

    assert sweep(rng.permutation(np.arange(1, 101, 2))) <= 25
    assert sweep(rng.permutation(np.arange(2, 102, 2))) <= 8


def test_generator_may_pause_and_close(model, prompts):
    settings = dataclasses.replace(DRAWN, probes=Probes.of("output"), batch_size=2)
    want = [row.metrics["token"].tolist() for row in drawn(model, prompts, settings)]
    batches = model.generate_rows(model.encode(prompts, chat=False), settings)
    first = next(batches)
    again = [
        row.metrics["token"].tolist() for row in drawn(model, prompts, settings)
    ]  # while the first generator pauses
    rows = [*first, *(row for batch in batches for row in batch)]
    assert [row.metrics["token"].tolist() for _, row in rows] == again == want
    closed = model.generate_rows(model.encode(prompts, chat=False), settings)
    next(closed)
    closed.close()


def test_cache_grows_and_shrinks(model):
    """The cache grows from 64 slots to 768, the need of the context, and back, while another row runs."""
    rng = np.random.default_rng(4)
    prompts = [rng.integers(0, CONFIG.vocab_size, size).tolist() for size in (5, 9, 690, 3, 4, 5)]
    settings = dataclasses.replace(DRAWN, probes=Probes.of("output"), batch_size=2)
    rows = drawn(model, prompts, settings)
    for i in (0, 2, 5):
        (want,) = drawn(model, prompts[i : i + 1], settings, numbers=[i])
        assert_same(rows[i].metrics, want.metrics)
