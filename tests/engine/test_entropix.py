"""Entropix against its rule in plain Python, row by row; its pauses; its quadrants against the published commit."""

import dataclasses
import functools
import math
from types import SimpleNamespace
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtrace import ConfigError, Dslider, Entropix, Probes, StepTrace, decode_step, init_state, pause_token
from jaxtrace.engine.samplers.quadrants import CLASSIC, SERVER, Formula, Region, choose_quadrant, measures_of
from jaxtrace.schema import QUADRANTS
from tests import oracle
from tests.engine.automaton import automaton
from tests.engine.published_entropix import published_draw, published_metrics

quick = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
FLOWING, TREADING, EXPLORING, RESAMPLING, ADAPTIVE = QUADRANTS
ROWS, VOCAB = 300, 90


def classic(m):
    """Return quadrant, temperature, top-p, top-k and min-p by commit e55e9a3, corrected."""
    ent, vent, aent, avent = m["entropy"], m["varentropy"], m["attention_entropy"], m["attention_varentropy"]
    if ent < 0.1 and vent < 0.1:
        return FLOWING, 1, 1, 1, 1
    if ent > 5 and vent < 0.1:
        return TREADING, min(1.5, 0.666 * (1.3 + 0.2 * aent)), 0.9, 27, 0.03
    if ent < 5 and vent > 5:
        top_k = max(5, int(27 * (1 + 0.5 * (1 - m["agreement"]))))
        return EXPLORING, min(1.5, 0.666 * (1.2 + 0.3 * m["interaction"])), 0.9, top_k, 0.03
    if ent > 3 and vent > 5:
        return RESAMPLING, min(2.0, 0.666 * (2 + 0.5 * avent)), max(0.5, 0.9 - 0.2 * aent), 27, 0.03
    temperature = 0.666 * (1 + 0.3 * (ent + vent) + 0.2 * (aent + avent) - 0.2 * m["agreement"])
    top_k = np.clip(27 * (1 + 0.3 * m["interaction"] - 0.2 * m["agreement"]), 1, 100)
    min_p = np.clip(0.03 * (1 - 0.5 * (ent + vent)), 0.01, 0.5)
    return ADAPTIVE, temperature, np.clip(0.9 * (1 + 0.1 * avent), 0.1, 1), top_k, min_p


def server(m):
    """Return quadrant, temperature, top-p, top-k and min-p by commit 9d41be6."""
    ent, vent, aent, avent = m["entropy"], m["varentropy"], m["attention_entropy"], m["attention_varentropy"]
    nats = ent * math.log(2)
    if ent < 0.8 and vent < 0.4 and aent < 1 and avent < 0.3:
        return FLOWING, 1, 1, 1, 1
    if ent > 2.5 and vent < 0.4 and aent < 1 and avent < 0.3:
        return TREADING, 0.8, 0.9, 40, 0.05
    if ent < 2.5 and vent > 1.2 and aent < 1 and avent > 0.8:
        return EXPLORING, 0.8, 0.9, 40, 0.05
    if ent > 1.7 and vent > 1.2 and aent > 2 and avent > 0.8:
        return RESAMPLING, min(2, 0.8 * (0.3 + 0.25 * avent)), max(0.5, 0.9 - 0.3 * aent), 40, 0.05
    temperature = np.clip(0.8 * math.sqrt((1.2 * nats + 2) / (nats + 1e-6)), 0.1, 2)
    return ADAPTIVE, temperature, 0.9, 40, np.clip(0.05 * (1 - 0.2 * vent), 0.01, 0.5)


def kept(logits, temperature, top_p, top_k, min_p):
    """Return a row's logits over the temperature; −inf where min-p, then top-k, then top-p removes a token."""
    row = np.asarray(logits, np.float64) / temperature
    row = np.where(np.exp(row - row.max()) >= min_p, row, -np.inf)
    row = np.where(row >= np.sort(row)[-min(round(top_k), len(row))], row, -np.inf)
    ranked = np.sort(row)[::-1]
    reached = np.cumsum(oracle.softmax(ranked))
    return np.where(row >= ranked[np.flatnonzero(reached >= top_p - 1e-9)[0]], row, -np.inf)


def test_measures_equal_their_float64_definitions(rng):
    rows, layers, heads, keys = 20, 3, 4, 12
    logits, scores = rng.normal(0, 2, (rows, 30)), rng.normal(0, 3, (rows, layers, heads, keys))
    weights = oracle.softmax(scores)
    of = lambda x: jnp.asarray(x, jnp.float32)  # noqa: E731
    metrics = StepTrace(
        entropy=of(oracle.entropy(logits)),
        varentropy=of(oracle.varentropy(logits)),
        attention_entropy=of(oracle.entropy(scores)),
        attention_varentropy=of(oracle.varentropy(scores)),
        head_jsd=of(oracle.head_jsd(weights)),
    )
    got, p = measures_of(metrics, 2), oracle.softmax(logits)
    by_head, entropy = -(weights * np.log2(weights)).sum(-1), -(p * np.log2(p)).sum(-1)
    spread = (weights * (np.log2(weights) + by_head[..., None]) ** 2).sum(-1)
    mean = weights.mean(axis=2)
    jsd = -(mean * np.log2(mean)).sum(-1) - by_head.mean(axis=2)
    want = {
        "entropy": entropy,
        "varentropy": (p * (np.log2(p) + entropy[:, None]) ** 2).sum(-1),
        "attention_entropy": by_head.mean((1, 2)),
        "attention_varentropy": spread.mean((1, 2)),
        "agreement": 1 - jsd.mean(1) / math.log2(heads),
        "interaction": np.sqrt(spread).mean((1, 2)) * math.log(2),
    }
    assert set(got) == {*want, "tempering"}
    for name, values in want.items():
        np.testing.assert_allclose(got[name], values, atol=2e-4, rtol=1e-5, err_msg=name)
    assert (got["agreement"] >= 0).all() and (got["agreement"] <= 1).all()


def test_agreement_is_zero_for_disjoint_heads_and_one_for_equal_heads():
    one = jnp.zeros((2, 1, 4))
    apart = StepTrace(
        entropy=jnp.ones(2),
        varentropy=jnp.ones(2),
        attention_entropy=one,
        attention_varentropy=one,
        head_jsd=jnp.array([[math.log(4)], [0.0]]),
    )
    np.testing.assert_allclose(measures_of(apart, 2)["agreement"], [0, 1], atol=1e-6)


@pytest.mark.parametrize(("table", "rule"), [(CLASSIC, classic), (SERVER, server)], ids=["classic", "server"])
def test_draws_follow_the_rule(table, rule, rng):
    """Compare each row with the rule in Python, given the same keys; the metrics, in bits, reach every quadrant."""
    logits = jnp.asarray(rng.normal(0, 2, (ROWS, VOCAB)), jnp.float32)
    bits, one = math.log(2), lambda high: rng.uniform(0, high, ROWS)
    jsd = one(1) * math.log(2)
    m = {
        "entropy": rng.choice([0.05, 0.5, 2, 2.4, 2.6, 4, 6], ROWS),
        "varentropy": rng.choice([0.05, 0.2, 1, 3, 6, 9], ROWS),
        "attention_entropy": rng.choice([0.5, 1.5, 3], ROWS),
        "attention_varentropy": rng.choice([0.2, 0.5, 2], ROWS),
        "agreement": 1 - jsd / math.log(2),
    }
    m["interaction"] = np.sqrt(m["attention_varentropy"]) * bits
    pair = lambda x: jnp.asarray(np.broadcast_to(x[:, None, None], (ROWS, 1, 2)), jnp.float32)  # noqa: E731
    metrics = StepTrace(
        entropy=jnp.asarray(m["entropy"] * bits, jnp.float32),
        varentropy=jnp.asarray(m["varentropy"] * bits**2, jnp.float32),
        attention_entropy=pair(m["attention_entropy"] * bits),
        attention_varentropy=pair(m["attention_varentropy"] * bits**2),
        head_jsd=jnp.asarray(jsd[:, None], jnp.float32),
    )
    sampler = Entropix(table)
    keys = jax.random.split(jax.random.key(9), ROWS)
    drawn = quick(sampler)(logits, keys, metrics, sampler.init(ROWS, VOCAB))
    noise = jax.vmap(lambda key: jax.vmap(lambda one: jax.random.gumbel(one, (VOCAB,)))(jax.random.split(key, 5)))
    several, rows, seen = np.asarray(noise(keys)), np.asarray(logits), set()
    for i, row in enumerate(rows):
        name, *settings = rule({key: value[i] for key, value in m.items()})
        assert list(QUADRANTS)[int(drawn.quadrant[i])] == name
        seen.add(name)
        candidates = (kept(row, *settings) + several[i]).argmax(-1)
        want = {FLOWING: row.argmax(), ADAPTIVE: max(candidates, key=lambda token: row[token])}
        assert int(drawn.token[i]) == want.get(name, candidates[0]), (i, name)
    assert seen == set(QUADRANTS)


def test_regions_are_open_and_the_first_one_applies():
    at = lambda ent, vent: {"entropy": jnp.array([ent]), "varentropy": jnp.array([vent])}  # noqa: E731
    points = [(0.05, 0.05), (0.1, 0.05), (4.0, 6.0), (5.0, 6.0)]
    numbers = [int(choose_quadrant(CLASSIC.regions, at(*point))[0]) for point in points]
    assert [list(QUADRANTS)[number] for number in numbers] == [FLOWING, ADAPTIVE, EXPLORING, RESAMPLING]


def test_exploring_truncates_its_top_k():
    """top_k = int(27 · (1 + 0.5 · (1 − agreement))); the other settings are rounded in the draw."""
    agreement = np.array([0.0, 0.1, 0.25, 0.5, 0.62, 1.0])
    got = CLASSIC.draws[1].top_k({"entropy": jnp.zeros(6), "agreement": jnp.asarray(agreement, jnp.float32)})
    assert got.tolist() == [int(27 * (1 + 0.5 * (1 - a))) for a in agreement] == [40, 39, 37, 33, 32, 27]


@pytest.mark.parametrize("bounds", [{"above": (("agreement", 0.5),)}, {"below": (("agreement", 0.5),)}], ids=str)
def test_regions_with_agreement_or_without_bounds(bounds):
    """Use one row whose heads agree and one whose heads do not; a region without bounds contains both."""
    table = dataclasses.replace(SERVER, regions=(Region(**bounds), Region(), *SERVER.regions[2:]))
    assert not SERVER.uses("agreement") and Entropix(table).needs.dispersion
    rows, pair = jnp.ones(2), jnp.ones((2, 1, 2))
    jsd = jnp.array([[0.0], [math.log(2)]])
    seen = {"attention_entropy": pair, "attention_varentropy": pair, "head_jsd": jsd}
    metrics = StepTrace(entropy=rows, varentropy=rows, **seen)
    agrees = [0, 1] if "above" in bounds else [1, 0]
    assert choose_quadrant(table.regions, measures_of(metrics, 2)).tolist() == agrees


def uniform(size=64, **options):
    """Return a model with uniform predictions: each step has 6 bits of entropy and no varentropy."""
    model = automaton([0] * size, **options)
    return dataclasses.replace(model, params=jax.tree.map(jnp.zeros_like, model.params))


def test_pauses_never_follow_each_other_and_each_prompt_starts_with_one():
    model = uniform()
    rows = model.generate([[1], [2], [3]], max_new_tokens=7, sampler=Entropix(pause=5), batch_size=1, seed=3).rows
    for row in rows:
        token = row.metrics["token"]
        assert (row.metrics["quadrant"] == list(QUADRANTS).index(TREADING)).all()
        assert token[0] == 5
        assert (token[np.flatnonzero(token[:-1] != 5) + 1] == 5).all()
        assert (token != 5).any()
    with pytest.raises(ConfigError, match="pause=64 is no token of a vocabulary of 64"):
        model.generate([[1]], sampler=Entropix(pause=64))


@pytest.mark.parametrize("layers", ["all", "last"])
def test_decisions_do_not_depend_on_the_recorded_layers(model, layers):
    """Record every layer, and nothing or every second layer; narrow attention makes a step flowing."""
    narrow = Region(below=(("attention_entropy", 1.5),))
    table = dataclasses.replace(SERVER, regions=(narrow, *SERVER.regions[1:]))
    sampler, config = Entropix(table, layers=layers), model.config

    def steps(probes):
        state = init_state(config, model.params, 4, 16, probes, sampler=sampler)
        state = dataclasses.replace(state, token=jnp.array([3, 4, 5, 6]))
        step = functools.partial(decode_step, model.params, config=config, probes=probes, sampler=sampler)
        return quick(lambda state: jax.lax.scan(lambda state, _: step(state), state, length=8))(state)[1]

    full = steps(Probes.of("attention", "dispersion"))
    if layers == "all":
        other = steps(Probes.none())
        assert other.arrays.keys() == {"token", "quadrant"}
    else:
        other = steps(Probes.of("attention", layer_stride=2))
        assert other.attention_entropy.shape[2] == 2
    for name in ("token", "quadrant"):
        np.testing.assert_array_equal(getattr(other, name), getattr(full, name))
    read = full.attention_entropy[:, :, slice(None) if layers == "all" else slice(-1, None)]
    flowing = np.asarray(read.mean((2, 3))) / math.log(2) < 1.5
    np.testing.assert_array_equal(full.quadrant == 0, flowing)
    assert 0 < flowing.mean() < 1


def test_decode_step_refuses_the_state_of_another_sampler(model):
    state = init_state(model.config, model.params, 1, 16, Probes.none())
    with pytest.raises(ConfigError, match="not initialised for this Entropix; pass the sampler to init_state too"):
        decode_step(model.params, state, config=model.config, probes=Probes.none(), sampler=Entropix())


@pytest.mark.parametrize("wrong", [Dslider(support=20), Dslider(support=(1, 2, 3))], ids=["20", "3"])
def test_decode_step_refuses_the_state_of_another_support(model, wrong):
    state = init_state(model.config, model.params, 1, 16, Probes.none(), sampler=wrong)
    with pytest.raises(ConfigError, match="not initialised for this Dslider; pass the sampler to init_state too"):
        decode_step(model.params, state, config=model.config, probes=Probes.none(), sampler=Dslider(support=30))


def test_prompt_positions_have_no_quadrant():
    probes = Probes.of("output", prompt_positions=True)
    row = uniform().generate([[1, 2, 3]], max_new_tokens=3, sampler=Entropix(), probes=probes).rows[0]
    assert (row.metrics["quadrant"][: row.prompt_steps] == -1).all()
    assert (row.metrics["quadrant"][row.prompt_steps :] >= 0).all() and row.length == row.prompt_steps + 3


class Words:
    """A tokenizer of three words, with the interface that `pause_token` uses."""

    words: ClassVar = {" ...": [9], " hm": [4], " well then": [5, 6]}

    def __init__(self, *missing):
        self.backend, self.missing = self, missing

    def encode(self, text, add_special_tokens):
        assert not add_special_tokens
        return SimpleNamespace(ids=[1, 2] if text in self.missing else self.words[text])


def test_pause_token_accepts_text_ids_and_none():
    assert [pause_token(Words()), pause_token(Words(), " hm"), pause_token(None, "7")] == [9, 4, 7]
    assert pause_token(None) is None and pause_token(Words(" ...")) is None
    with pytest.raises(ConfigError, match="' well then' is 2 tokens of this model, not one"):
        pause_token(Words(), " well then")
    with pytest.raises(ConfigError, match="no tokenizer; give the token's id"):
        pause_token(None, " hm")


def test_repr_names_the_published_thresholds():
    assert repr(Entropix()) == "Entropix(thresholds=CLASSIC, pause=None, layers='all')"
    assert "base=2" not in repr(SERVER) and "'base': 3" in repr(dataclasses.replace(SERVER, base=3))


@pytest.mark.parametrize(("name", "value"), [("temperature", 1e-38), ("top_p", 1e-300), ("min_p", 2.0)])
def test_a_constant_draw_setting_out_of_range_is_refused(name, value):
    with pytest.raises(ConfigError, match=f"draw settings: {name} is {value}; it must be") as error:
        dataclasses.replace(CLASSIC.draws[0], **{name: Formula(value)})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["temperature", "top_p", "top_k"])
def test_a_formula_below_the_bound_draws_as_at_the_bound(name):
    """A setting of −1 times the entropy leaves the most likely token alone, as 0.001, 1e-6 and 1 do."""
    below = [dataclasses.replace(draw, **{name: Formula(0, (("entropy", -1.0),))}) for draw in CLASSIC.draws]
    logits = jnp.asarray(np.random.default_rng(0).permuted(np.tile(np.linspace(0, 5, 40), (30, 1)), axis=1))
    metrics = StepTrace(
        entropy=jnp.full(30, 2.0),
        varentropy=jnp.full(30, 2.0),
        attention_entropy=jnp.ones((30, 1, 2)),
        attention_varentropy=jnp.ones((30, 1, 2)),
        head_jsd=jnp.zeros((30, 1)),
    )
    sampler = Entropix(dataclasses.replace(CLASSIC, draws=tuple(below)))
    drawn = quick(sampler)(logits, jax.random.split(jax.random.key(1), 30), metrics, None).token
    np.testing.assert_array_equal(drawn, jnp.argmax(logits, axis=-1))


def recorded(seed, scale, heads=3, slots=24, written=9):
    """Return random logits, and scores whose unwritten slots are 0, as in the source's cache."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, scale, 150)
    scores = np.zeros((heads, 1, slots))
    scores[..., :written] = rng.normal(0, 2, (heads, 1, written))
    return logits, scores


@pytest.mark.parametrize("scale", [0.001, 1.5, 3.0, 4.0, 90.0])
def test_quadrants_and_certain_draws_equal_the_published_commit(scale):
    """The regions read entropy and varentropy only, which the commit computes correctly; draws differ by design."""
    draw = quick(Entropix(pause=2564))
    for seed in range(3):
        logits, scores = recorded(seed, scale)
        zeros = jnp.zeros((1, 1, 2))
        metrics = StepTrace(
            entropy=jnp.float32([oracle.entropy(logits)]),
            varentropy=jnp.float32([oracle.varentropy(logits)]),
            attention_entropy=zeros,
            attention_varentropy=zeros,
            head_jsd=zeros[..., 0],
        )
        keys = jax.random.split(jax.random.key(seed), 1)
        output = draw(jnp.float32(logits)[None], keys, metrics, jnp.zeros(1, bool))
        name, token = published_draw(logits, scores, previous=1)
        assert list(QUADRANTS)[int(output.quadrant[0])] == name
        if name in (FLOWING, TREADING):
            assert int(output.token[0]) == token


def test_published_errors_that_are_corrected_here():
    """Unwritten slots count; agreement is a disagreement of order 1 / K; every step has the same noise."""
    rng = np.random.default_rng(0)
    scores = np.zeros((8, 1, 4096))
    scores[..., :50] = rng.normal(0, 2, (8, 1, 50))
    metrics = published_metrics(rng.normal(0, 1, 50), scores)
    assert abs(metrics["attn_entropy"] - 11.75) < 0.1  # 3.7 bits over the 50 visible keys
    assert metrics["agreement"] < 1e-4
    assert len({published_draw(*recorded(0, 1.5), 1) for _ in range(3)}) == 1
    assert published_draw(*recorded(0, 0.001), previous=2564)[1] != 2564
