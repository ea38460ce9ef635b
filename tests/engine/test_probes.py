"""Probe groups: each alone equals its part of all groups, and no group costs nothing."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtrace import ConfigError, Greedy, Probes, decode_step, init_state, score_step
from jaxtrace.models.forward import forward, unembed
from jaxtrace.schema import GROUPS, METRICS
from tests.engine.reference import assert_same

quick = {"xla_backend_optimization_level": 0}  # half the time to compile
score = jax.jit(score_step, static_argnames=("config", "probes"), compiler_options=quick)
decode = jax.jit(decode_step, static_argnames=("config", "probes", "sampler"), compiler_options=quick)


def traced(model, probes):
    """Return the metrics of 8 scored positions of two rows, and of the decode step after them."""
    static = {"config": model.config, "probes": probes}
    tokens = jnp.arange(16).reshape(2, 8)
    state = init_state(model.config, model.params, 2, 16, probes)
    state, scored = score(model.params, state, tokens, jnp.array([8, 6]), tokens + 1, **static)
    _, decoded = decode(model.params, state, **static)
    return tuple({k: np.asarray(v) for k, v in x.arrays.items()} for x in (scored, decoded))


@pytest.fixture(scope="module")
def everything(model):
    return traced(model, Probes.all())


DENSE = tuple(group for group in GROUPS if group != "router")  # groups of a model without experts


@pytest.mark.parametrize("group", DENSE)
def test_single_group_equals_its_part_of_all_groups(group, model, everything):
    probes = Probes.of(group)
    assert probes.groups == (group,)
    for alone, among_all in zip(traced(model, probes), everything, strict=True):
        assert set(alone) == set(probes.metrics) - {"learned_sink_mass"}
        assert_same(alone, {name: among_all[name] for name in alone})


def test_all_groups_record_all_metrics(everything):
    assert Probes.of("all") == Probes.all()
    names = {name for name, metric in METRICS.items() if metric.group in ("", *DENSE)}
    for trace in everything:
        assert set(trace) == names - {"learned_sink_mass"}
    assert names == set(Probes.all().metrics) == set(Probes.of(*DENSE).metrics)


def plain_step(params, state, *, config):
    """Run a decode step without probes, written by hand."""
    result = forward(config, params, state.token[:, None], state.cache, state.length)
    return result.cache, Greedy()(unembed(config, params, result.hidden)[:, 0]).token


def cost(step, *args):
    compiled = jax.jit(step).lower(*args).compile()
    return compiled.cost_analysis() | {"memory": compiled.memory_analysis().temp_size_in_bytes}


def test_step_without_probes_costs_no_more_than_a_plain_step(model):
    config = model.config
    probes = Probes.none()
    state = init_state(config, model.params, 2, 64, probes)
    assert state.hidden is None
    step = functools.partial(decode_step, config=config, probes=probes)
    got = cost(step, model.params, state)
    want = cost(functools.partial(plain_step, config=config), model.params, state)
    assert got["transcendentals"] == want["transcendentals"]
    np.testing.assert_allclose(got["flops"], want["flops"], rtol=2e-3)  # counters of the rows
    np.testing.assert_allclose(got["bytes accessed"], want["bytes accessed"], rtol=2e-2)
    assert got["memory"] <= want["memory"] * 1.05


def test_step_without_probes_returns_the_token_only(model, everything):
    for none, all_ in zip(traced(model, Probes.none()), everything, strict=True):
        assert set(none) == {"token"}
        np.testing.assert_array_equal(none["token"], all_["token"])


def test_unknown_group_is_refused():
    assert Probes.of("none") == Probes.none()
    assert Probes.none().groups == ()
    assert Probes.of("lens", "none").groups == ("lens",)
    with pytest.raises(ConfigError, match="no probe group 'atention'; there are: all, none, output") as error:
        Probes.of("lens", "atention")
    assert "\n" not in str(error.value)
    assert hash(Probes.all()) == hash(Probes())


def test_nan_weights_give_nan_metrics(model):
    broken = dataclasses.replace(model, params=jax.tree.map(lambda x: x * jnp.nan, model.params))
    scored, decoded = traced(broken, Probes.all())
    later = {name: values[:, 1:] for name, values in scored.items()}  # one visible key has entropy 0
    for trace in (later, decoded):
        trace["lens_kl"] = trace["lens_kl"][..., :-1]  # the last layer against itself is 0 in any case
        assert [k for k, v in trace.items() if v.dtype.kind == "f" and np.isfinite(v).any()] == []
    assert (decoded["token"] == -1).all()


@pytest.mark.parametrize("alphas", [(-1.0,), (float("nan"),), (2.0, 2.0), (0.001,)])
def test_renyi_orders_out_of_range_are_refused(alphas):
    with pytest.raises(ConfigError, match=r"each must be 0, 1, inf, or from 0\.01"):
        Probes(alphas=alphas)
