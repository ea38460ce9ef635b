"""Bad arguments of the public kernel functions: a one-line error that says what to change."""

import jax
import jax.numpy as jnp
import jaxtyping
import pytest
from jaxtrace.kernels import Unsupported

from jaxtrace import kernels

Q, K, V = jnp.ones((2, 3, 4, 8)), jnp.ones((2, 2, 8, 16)), jnp.ones((2, 2, 16, 8))
ROWS, GROUPS = jnp.zeros(2, jnp.int32), jnp.ones((2, 3, 4), bool)
HIDDEN, UNEMBEDDING = jnp.ones((2, 3, 8)), jnp.ones((50, 8))


def decode(q=Q[:, 0], k=K, v=V, lengths=ROWS, **options):
    return kernels.decode_attention(q, k, v, lengths, scale=1.0, **options)


def prefill(q=Q, k=K, v=V, start=ROWS, **options):
    return kernels.prefill_attention(q, k, v, start, scale=1.0, **options)


def dispersion(q=Q, k=K, start=ROWS, **options):
    return kernels.head_dispersion(q, k, start, scale=1.0, **options)


def cross(q=Q, k=K, v=V, groups=GROUPS):
    return kernels.cross_attention(q, k, v, groups, scale=1.0)


BAD = [
    (lambda: decode(k=K[:1]), "queries .* and keys .* do not agree"),
    (lambda: decode(k=K.swapaxes(2, 3)), "queries .* and keys .* do not agree"),
    (lambda: decode(v=V[:, :, :5]), "keys .* and values .* do not agree"),
    (lambda: decode(q=Q[:, 0, :3]), "3 query heads cannot share 2 key/value heads evenly; give a multiple"),
    (lambda: decode(q=Q), "do not agree"),
    (lambda: decode(k=K[:, :0], v=V[:, :0]), "do not agree"),
    (lambda: decode(lengths=jnp.int32(3)), "give one integer to each of 2 rows"),
    (lambda: decode(lengths=jnp.ones(2)), "give one integer to each of 2 rows"),
    (lambda: decode(lengths=[1, 17]), "length 17 is beyond the 16 slots of the cache"),
    (lambda: decode(window=0), "window is 0, which sees no key; give 1 or more"),
    (lambda: decode(learned_sink=jnp.ones(2)), "learned sinks are .* give one to each of 4 query heads"),
    (lambda: prefill(q=Q[0]), "do not agree"),
    (lambda: prefill(learned_sink=jnp.ones((4, 1))), "learned sinks are .* give one to each of 4 query heads"),
    (lambda: prefill(start=14), "length 17 is beyond the 16 slots of the cache"),
    (lambda: prefill(start=jnp.zeros(3, jnp.int32)), "give one integer to each of 2 rows"),
    (lambda: dispersion(start=14), "length 17 is beyond the 16 slots of the cache"),
    (lambda: dispersion(k=K[:, :, :4]), "do not agree"),
    (lambda: cross(groups=GROUPS[:, :1]), "groups .* do not fit queries"),
    (lambda: cross(groups=jnp.ones((2, 3, 5), bool)), "groups .* do not fit queries .* and 16 keys"),
    (lambda: kernels.softmax_moments(jnp.ones((3, 0))), "have no entries"),
    (lambda: kernels.softmax_moments(jnp.ones((0, 3))), "have no entries"),
    (lambda: kernels.unembed_moments(HIDDEN, UNEMBEDDING[:, :5]), "8 wide, the unembedding 5; give equal widths"),
    (lambda: kernels.unembed_moments(HIDDEN[0], UNEMBEDDING), r"wrong rank; give \[G, R, D\] and \[V, D\]"),
    (
        lambda: kernels.unembed_moments(HIDDEN[:, :0], UNEMBEDDING),
        "is empty; give at least one group, one row and one token",
    ),
    (
        lambda: kernels.unembed_moments(HIDDEN, UNEMBEDDING, targets=ROWS),
        r"targets \(2,\) do not fit 3 rows; give one to each row",
    ),
    (lambda: kernels.dispersion_of(jnp.ones(3), "spread"), "kind is 'spread'; choose from std, var, cv, fano, range"),
]


@pytest.fixture
def no_jaxtyping_checks():
    """Turn off jaxtyping's shape checks, which only the tests turn on."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.mark.usefixtures("no_jaxtyping_checks")
@pytest.mark.parametrize(("call", "message"), BAD, ids=range(len(BAD)))
def test_arguments_that_do_not_agree_raise_one_line(call, message):
    with pytest.raises(ValueError, match=message) as error:
        call()
    assert "\n" not in str(error.value)


def test_split_heads_require_xla():
    with pytest.raises(Unsupported, match="pallas_tpu cannot join heads that are split over devices; use xla"):
        dispersion(axis_name="model", implementation="pallas_tpu")


def test_unsupported_dtypes_fall_back_to_the_next_implementation():
    half = [x.astype(jnp.float16) for x in (Q, K)]
    with pytest.raises(Unsupported, match="pallas_tpu_interpret: no kernel for float16"):
        dispersion(*half, implementation="pallas_tpu_interpret")
    with kernels.compiling_for("tpu"):
        jax.eval_shape(lambda q, k: dispersion(q, k), *half)
