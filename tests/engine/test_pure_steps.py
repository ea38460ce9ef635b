"""The steps as pure functions: in a scan, a vmap and a user's own loss."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from jaxtrace import Probes, decode_step, init_state, prefill, score_step
from tests.engine.reference import assert_same

# Unoptimised programs compile in half the time.
quick = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
TOKENS = jnp.array([[3, 1, 4, 1, 5, 9, 2, 6]])


def fed(model, prompt, probes):
    """Return a state of one row that has fed all of its prompt but the last token."""
    static = {"config": model.config, "probes": probes}
    state = init_state(model.config, model.params, 1, 64, probes, prompt_length=jnp.array([len(prompt)]))
    state = prefill(model.params, state, jnp.array([prompt[:-1]]), jnp.array([len(prompt) - 1]), **static)
    return dataclasses.replace(state, token=jnp.array(prompt[-1:]))


def test_scan_of_decode_steps_equals_generate(model, prompts, generated):
    probes = Probes.all()
    step = functools.partial(decode_step, config=model.config, probes=probes)

    @functools.partial(quick, donate_argnums=1)
    def loop(params, state):
        return jax.lax.scan(lambda state, _: step(params, state), state, length=20)

    state, traces = loop(model.params, fed(model, prompts[0], probes))
    got = {name: np.asarray(values)[:, 0] for name, values in traces.arrays.items()}
    assert_same(got, generated.rows[0].metrics)
    assert state.length[0] == len(prompts[0]) - 1 + 20
    assert state.active[0]


def test_vmap_over_temperatures(model):
    """Scaling the final norm divides the logits by a temperature, with which the entropy grows."""
    probes = Probes.of("output")
    state = fed(model, [1, 2, 3], probes)

    def entropy(temperature):
        norm = {"weight": model.params["final_norm"]["weight"] / temperature}
        params = {**model.params, "final_norm": norm}
        return decode_step(params, state, config=model.config, probes=probes)[1].entropy[0]

    temperatures = jnp.array([0.5, 1.0, 2.0, 4.0])
    together = quick(jax.vmap(entropy))(temperatures)
    assert (np.diff(together) > 0).all()
    alone = quick(entropy)
    np.testing.assert_allclose(together, [alone(t) for t in temperatures], rtol=0, atol=1e-5)


@pytest.fixture(scope="module")
def shallow(model):
    """Return the first two layers of the model: gradients compile faster, through the same operations."""
    config = dataclasses.replace(model.config, num_layers=2)
    return dataclasses.replace(model, config=config, params={**model.params, "layers": model.params["layers"][:2]})


def loss_of(model, probes, value):
    def loss(params):
        state = init_state(model.config, params, 1, 16, probes)
        count = jnp.array([TOKENS.shape[1]])
        _, trace = score_step(params, state, TOKENS, count, TOKENS, config=model.config, probes=probes)
        return value(trace)

    return loss


def test_gradient_of_the_mean_entropy_equals_differences(shallow):
    model = shallow
    mean_entropy = loss_of(model, Probes.of("output"), lambda trace: jnp.mean(trace.entropy))
    loss, gradient = quick(mean_entropy), quick(jax.grad(mean_entropy))(model.params)
    flat, unflatten = ravel_pytree(model.params)
    slope = np.asarray(ravel_pytree(gradient)[0], np.float64)
    assert np.isfinite(slope).all()
    steepest = np.argsort(-np.abs(slope))[[0, 1, 5, 25]]
    directions = [np.eye(1, flat.size, i)[0] for i in steepest] + [slope / np.linalg.norm(slope)]
    for direction in directions:
        up, down = (loss(unflatten(flat + h * jnp.asarray(direction, jnp.float32))) for h in (5e-3, -5e-3))
        np.testing.assert_allclose((up - down) / 1e-2, slope @ direction, rtol=2e-2)


SMOOTH = (
    "attention_entropy",
    "attention_varentropy",
    "attention_entropy_no_sink",
    "sink_mass",
    "attention_self",
    "attention_previous",
    "attention_prompt_mass",
    "attention_max",
    "head_jsd",
    "lens_entropy",
    "lens_varentropy",
    "lens_kl",
    "hidden_norm",
    "hidden_delta_layer",
    "hidden_cosine_layer",
)


def test_gradients_of_other_metrics_are_finite(shallow):
    model = shallow
    loss = loss_of(model, Probes.all(), lambda trace: jnp.stack([jnp.mean(getattr(trace, name)) for name in SMOOTH]))
    slopes = quick(jax.jacrev(loss))(model.params)
    leaves = jax.tree.leaves(slopes)
    finite = {name: all(np.isfinite(leaf[i]).all() for leaf in leaves) for i, name in enumerate(SMOOTH)}
    assert [name for name, good in finite.items() if not good] == []


def test_gradient_of_hdi_is_finite_for_equal_heads(shallow):
    """At the first position each head sees one key, so all entropies and their spread are 0."""
    model = shallow
    loss = loss_of(model, Probes.of("dispersion"), lambda trace: jnp.mean(trace.hdi))
    slopes = quick(jax.grad(loss))(model.params)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(slopes))
