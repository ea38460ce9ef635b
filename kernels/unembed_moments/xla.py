"""unembed_moments for XLA: blocks of rows with their whole vocabulary, read a few rows at a time.

The product is one matrix product per block. Splitting the vocabulary instead was measured slower on a CPU (6 rows ×
32,000 tokens: 1.9 ms whole, 3.7 to 5.3 ms in tiles of 2,000 to 8,000), because XLA copies a tile of the unembedding
before it uses it. The passes over the logits read a few rows at a time, which stay in a core's cache.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ..linear import linear
from ..moments import MASKED, Alphas, Moments, cross_terms
from ..soft_cap import Cap, soft_capped
from ..softmax_moments.xla import top_two
from .reference import target_logits
from .types import Hidden, Targets, Unembedding, UnembedSums

BLOCK_ENTRIES = 1 << 24  # logits of one product: 64 MiB in float32
CACHE_ENTRIES = 1 << 19  # logits read together: 2 MiB


def unembed_moments(
    hidden: Hidden, unembedding: Unembedding, *, alphas: Alphas, soft_cap: Cap, targets: Targets, keep_logits: bool
) -> UnembedSums:
    """Compute unembed_moments a block of rows at a time."""
    groups, _, width = hidden.shape
    vocabulary = unembedding.shape[0]

    def block(hidden: Hidden, targets: Targets) -> UnembedSums:
        # Two dimensions, because XLA's CPU backend is slower over the same rows in three.
        logits = linear(hidden.reshape(-1, width), unembedding, jnp.float32)
        logits = soft_capped(logits, soft_cap).reshape(groups, -1, vocabulary)
        read = functools.partial(_read_logits, alphas=alphas, keep_logits=keep_logits)
        return map_rows(read, CACHE_ENTRIES // (groups * vocabulary), logits, targets)

    return map_rows(block, BLOCK_ENTRIES // (groups * vocabulary), hidden, targets)


def unembed_if_present(
    hidden: Hidden,
    unembedding: Unembedding,
    present: Bool[Array, ""],
    *,
    alphas: Alphas,
    soft_cap: Cap,
    targets: Targets,
    keep_logits: bool,
) -> UnembedSums:
    """Compute unembed_moments over a few tokens, which are absent unless `present`."""
    logits = soft_capped(linear(hidden, unembedding, jnp.float32), soft_cap)
    return _read_logits(jnp.where(present, logits, MASKED), targets, alphas=alphas, keep_logits=keep_logits)


def map_rows(
    function: Callable[[Array, Array | None], UnembedSums], size: int, grouped: Float[Array, "G R X"], targets: Targets
) -> UnembedSums:
    """Apply `function(grouped [G, size, X], targets [size])` to `size` rows at a time, and join the results."""
    rows = grouped.shape[1]
    size = max(1, size)
    if rows <= size:
        return function(grouped, targets)
    count = -(-rows // size)
    size = -(-rows // count)
    pad = count * size - rows
    grouped = jnp.pad(grouped, ((0, 0), (0, pad), (0, 0)))
    split = None if targets is None else jnp.pad(targets, (0, pad)).reshape(count, size)

    def part(i: Int[Array, ""], targets: Targets) -> UnembedSums:
        return function(jax.lax.dynamic_slice_in_dim(grouped, i * size, size, axis=1), targets)

    result = jax.lax.map(lambda xs: part(*xs), (jnp.arange(count), split))

    def flat(x: Array) -> Array:
        return x.reshape(count * size, *x.shape[2:])[:rows]

    moments, top1, cross = jax.tree.map(jax.vmap(flat, 1), (result.moments, result.top1, result.cross))
    of_output = (result.r, result.c, result.second, result.target, result.logits)
    r, c, second, target, logits = jax.tree.map(flat, of_output)
    return UnembedSums(moments, r, c, top1, second, cross, target, logits)


def _read_logits(logits: Float[Array, "G R V"], targets: Targets, *, alphas: Alphas, keep_logits: bool) -> UnembedSums:
    """Return the sums of logits that are held at once."""
    groups, rows, vocabulary = logits.shape
    flat = logits.reshape(-1, vocabulary)
    largest, top1, second = top_two(flat)
    moments = Moments.of(flat, largest=largest)
    output, final = jax.tree.map(lambda x: x[-rows:], (flat, moments))
    u = (flat - moments.m[:, None]).reshape(logits.shape)
    moments, top1 = jax.tree.map(lambda x: x.reshape(groups, rows, *x.shape[1:]), (moments, top1))
    cross = jnp.zeros_like(moments.l)
    if groups > 1:
        absent = logits <= MASKED
        terms = cross_terms(jnp.exp(u[-1]), u[-1], u[:-1], absent[-1], absent[:-1])
        cross = cross.at[:-1].set(jnp.sum(terms, axis=-1))
    of_orders = Moments.of(output, alphas=alphas, largest=final.m)
    return UnembedSums(
        moments=moments,
        r=of_orders.sums_by_order,
        c=of_orders.c,
        top1=top1,
        second=second[-rows:],
        cross=cross,
        target=None if targets is None else target_logits(output, targets),
        logits=output if keep_logits else None,
    )
