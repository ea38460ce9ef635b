"""Kernels with the vocabulary or heads split over devices, against the same kernels on one device."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec as P
from jaxtrace.kernels import UnembedMoments, cross_dispersion, head_dispersion, softmax_moments, unembed_moments
from jaxtrace.kernels.moments import MASKED

from jaxtrace.models.on_mesh import sharded_unembed_moments
from jaxtrace.parallel.mesh import make_mesh

ALPHAS = (0.5, 2.0)
AXIS = "model"


def check():
    """Raise AssertionError if a result differs."""
    rng = np.random.default_rng(0)
    mesh = make_mesh("model=8")

    def split(call, **specs):
        """Return a compiled call: without jit, each operation of the mapped function would be a program of its own."""
        return jax.jit(jax.shard_map(call, mesh=mesh, check_vma=False, **specs))

    _softmax(rng, split)
    _unembed(rng, split)
    _dispersion(rng, split)
    with jax.set_mesh(mesh):
        _small_vocabulary(rng)


def _softmax(rng, split):
    logits = rng.normal(0, 2, (4, 800)).astype(np.float32)
    logits[1, 100:] = -np.inf  # the other devices hold only masked entries
    logits[2, [3, 703]] = 9.0  # two equal maxima, on two devices
    logits[3, 300] = np.nan
    call = functools.partial(softmax_moments, alphas=ALPHAS, temperature=0.7)
    whole = call(jnp.asarray(logits))
    assert int(whole.top1[2]) == 3 and float(whole.top1_top2_gap[2]) == 0
    parts = split(functools.partial(call, axis_name=AXIS), in_specs=P(None, AXIS), out_specs=P())(logits)
    assert np.isnan(parts.moments.entropy[3])
    assert_near(*(dataclasses.replace(x, top1=x.top1[:3]) for x in (parts, whole)))  # a row of NaN has no maximum


def _unembed(rng, split):
    hidden, unembedding = rng.normal(0, 1, (3, 4, 32)), rng.normal(0, 0.4, (808, 32))
    arrays = jnp.float32(hidden), jnp.float32(unembedding), jnp.int32([0, 101, 400, 807])

    def call(hidden, unembedding, targets, **kwargs):
        options = dict(alphas=ALPHAS, soft_cap=20.0, keep_logits=True)
        return unembed_moments(hidden, unembedding, targets=targets, **options, **kwargs)

    out_specs = UnembedMoments(*[P()] * 8, P(None, AXIS))
    mapped = split(functools.partial(call, axis_name=AXIS), in_specs=(P(), P(AXIS), P()), out_specs=out_specs)
    assert_near(mapped(*arrays), call(*arrays))

    def uneven(hidden, unembedding, targets):
        """Split 805 tokens into eight parts of 101: the last device lacks three and gets other rows."""
        part = jax.lax.dynamic_slice_in_dim(unembedding, 101 * jax.lax.axis_index(AXIS), 101)
        return call(hidden, part[:98], targets, axis_name=AXIS, extra_rows=part[98:])

    hidden, unembedding, targets = arrays
    arrays = hidden, unembedding.at[805:].set(9.0), targets.at[3].set(804)
    uneven_parts = split(uneven, in_specs=P(), out_specs=out_specs)(*arrays)
    assert (uneven_parts.logits[:, 805:] == MASKED).all()
    assert_near(
        dataclasses.replace(uneven_parts, logits=uneven_parts.logits[:, :805]),
        call(hidden, unembedding[:805], targets.at[3].set(804)),
    )


def _small_vocabulary(rng):
    """Compare 41 tokens, of which the last of eight devices would have fewer than none."""
    hidden, table = jnp.float32(rng.normal(size=(2, 4, 1, 16))), jnp.float32(rng.normal(size=(41, 16)))
    whole = unembed_moments(hidden[:, :, 0], table, keep_logits=True)
    assert_near(
        jax.jit(sharded_unembed_moments, static_argnames="keep_logits")(hidden, table, None, keep_logits=True), whole
    )


def _dispersion(rng, split):
    q, k = jnp.float32(rng.normal(0, 1, (2, 3, 16, 8))), jnp.float32(rng.normal(0, 1, (2, 8, 8, 20)))
    start, groups = jnp.int32([-2, 11]), jnp.asarray(rng.random((2, 3, 4)) < 0.7)
    for call, rows in ((head_dispersion, start), (cross_dispersion, groups)):
        call = functools.partial(call, scale=0.5)
        mapped = functools.partial(call, axis_name=AXIS)
        specs = P(None, None, AXIS), P(None, AXIS), P()
        assert_near(split(mapped, in_specs=specs, out_specs=P())(q, k, rows), call(q, k, rows))


def assert_near(actual, expected):
    for x, y in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=2e-6)
