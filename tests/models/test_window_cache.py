"""Caches that hold only the positions a window needs give what a cache of all positions gives."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtrace import ConfigError, Probes, decode_step, init_params, init_state, prefill, score_step
from jaxtrace.engine.slots import resize_cache
from jaxtrace.models.cache import cache_bytes, empty_cache
from jaxtrace.models.config import LayerKind
from jaxtrace.models.decoder import stack_layers
from jaxtrace.models.stacked import layer_at
from tests.engine.conftest import CONFIG
from tests.engine.reference import assert_same, at

KINDS = {
    "windows": {"pattern": (LayerKind(window=5), LayerKind()), "learned_sink": True, "score_soft_cap": 3.0},
    "chunks": {"pattern": (LayerKind(chunk=6),)},
    "window of one": {"pattern": (LayerKind(window=1), LayerKind())},
    "shared": {"pattern": (LayerKind(window=5), LayerKind(), LayerKind(window=5, kv_source=0))},
}
SLOTS, CHUNK, STEPS = 64, 4, 24
PROBES = Probes.of("output", "attention", "dispersion", "hidden")
STARTS = jnp.array([0, 7])  # tokens that each row has fed before the decode steps, at most two pieces
# Unoptimised programs compile in half the time.
quick = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def case(name):
    """Return a config, parameters with large weights, and rows of tokens."""
    config = dataclasses.replace(CONFIG, num_layers=3 if name != "chunks" else 1, **KINDS[name])
    params = jax.tree.map(lambda x: x * (1 if x.ndim == 1 else 8), init_params(config, jax.random.key(0)))
    return config, params, jnp.asarray(np.random.default_rng(3).integers(0, config.vocab_size, (2, STEPS + 8)))


def scored(config, params, tokens):
    """Return the metrics of every position, from a cache of all positions."""
    state = init_state(config, params, len(tokens), SLOTS, PROBES, prompt_length=STARTS + 3)
    count = jnp.full(len(tokens), tokens.shape[1])
    step = quick(functools.partial(score_step, config=config, probes=PROBES))
    return step(params, state, tokens, count, jnp.zeros_like(tokens))[1]


def fed(config, params, tokens):
    """Return a state with windows after unequal numbers of tokens of each row, fed in padded pieces."""
    state = init_state(config, params, len(tokens), SLOTS, PROBES, prompt_length=STARTS + 3, chunk=CHUNK)
    feed = quick(functools.partial(prefill, config=config, probes=PROBES))
    for at_once in (0, CHUNK):
        count = jnp.clip(STARTS - at_once, 0, CHUNK)
        state = feed(params, state, tokens[:, at_once : at_once + CHUNK], count)
    return state


@pytest.mark.parametrize(
    ("name", "stacked"),
    [
        ("windows", True),
        ("chunks", False),
        *(
            pytest.param(*each, marks=pytest.mark.nightly)
            for each in (("windows", False), ("window of one", False), ("shared", True))
        ),
    ],
)
def test_steps_over_kept_positions_equal_those_over_all(name, stacked):
    config, params, tokens = case(name)
    want = scored(config, params, tokens).arrays
    params = stack_layers(config, params) if stacked else params
    state = fed(config, params, tokens)
    assert len({leaf.shape[-1] for leaf in jax.tree.leaves(state.cache) if leaf.ndim > 3}) > 1

    @quick
    def steps(params, state, tokens):
        def step(state, i):
            token = jnp.take_along_axis(tokens, state.length[:, None], axis=1)[:, 0]
            state = dataclasses.replace(state, token=token)
            return decode_step(params, state, config=config, probes=PROBES)

        return jax.lax.scan(step, state, None, STEPS)[1]

    got = steps(params, state, tokens).arrays
    for row, start in enumerate(STARTS):
        expected = at({key: np.asarray(x[row]) for key, x in want.items()}, slice(start, start + STEPS))
        measured = {key: np.asarray(x[:, row]) for key, x in got.items() if key not in ("token", "logprob")}
        assert_same(measured, {key: expected[key] for key in measured})


@pytest.mark.parametrize("stacked", [False, pytest.param(True, marks=pytest.mark.nightly)])
def test_a_cache_that_shrinks_to_all_positions_has_each_at_its_place(stacked):
    config, params, tokens = case("windows")
    params = stack_layers(config, params) if stacked else params
    static = {"config": config, "probes": PROBES}
    feed = quick(functools.partial(prefill, **static))
    kept, whole = (init_state(config, params, 2, SLOTS, PROBES, chunk=chunk) for chunk in (CHUNK, None))
    for begin in range(0, 12, CHUNK):
        arguments = tokens[:, begin : begin + CHUNK], jnp.array([CHUNK, CHUNK - (begin == 8)])
        kept, whole = (feed(params, state, *arguments) for state in (kept, whole))
    sizes = {"config": config, "mesh": None}
    small = resize_cache(kept, slots=15, chunk=16, **sizes)
    for layer in range(config.num_layers):
        got, want = (layer_at(state.cache, layer) for state in (small, whole))
        assert got.offset is None and got.k.shape[-1] == 15
        np.testing.assert_allclose(got.k[..., 7:11], want.k[..., 7:11], rtol=0, atol=1e-5)
        np.testing.assert_allclose(got.v[..., 7:11, :], want.v[..., 7:11, :], rtol=0, atol=1e-5)
    again = jax.eval_shape(functools.partial(resize_cache, slots=SLOTS, chunk=CHUNK, **sizes), small)
    assert [leaf.shape for leaf in jax.tree.leaves(again)] == [leaf.shape for leaf in jax.tree.leaves(kept)]


def test_more_positions_than_the_chunk_are_refused():
    config, params, tokens = case("windows")
    state = init_state(config, params, 2, SLOTS, PROBES, chunk=CHUNK)
    with pytest.raises(ConfigError, match=r"cache: 5 positions .* room for 4; feed fewer"):
        prefill(params, state, tokens[:, :5], jnp.array([5, 5]), config=config, probes=PROBES)


def test_bytes_are_those_of_the_caches():
    config, *_ = case("shared")
    for chunk in (None, CHUNK):
        cache = jax.eval_shape(lambda chunk=chunk: empty_cache(config, 3, SLOTS, stacked=False, chunk=chunk))
        arrays = [leaf for leaf in jax.tree.leaves(cache) if leaf.ndim > 1]
        assert cache_bytes(config, 3, SLOTS, 4, chunk) == sum(4 * leaf.size for leaf in arrays)
    unlike = dataclasses.replace(config, pattern=(*config.pattern[:2], LayerKind(kv_source=0)))
    assert cache_bytes(unlike, 3, SLOTS, 4, CHUNK) == cache_bytes(config, 3, SLOTS, 4)
