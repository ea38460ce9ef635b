"""Collectives of small programs with known communication, compiled for four chips."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import topologies
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxtrace.planning.hlo import Collective, collectives, kernels, shape_bytes
from tests.kernels import tpu  # noqa: F401 — sets what libtpu reads when it is loaded

pytest.importorskip("libtpu", reason="libtpu is not installed: no compiler for TPUs")

N = 1024  # entries of each chip's part, in float32


@pytest.fixture(scope="module")
def compiled_collectives():
    """Return a function: collectives of a compiled function of each chip's part of an array."""
    devices = np.array(topologies.get_topology_desc("v5e:2x2", platform="tpu").devices)
    mesh = Mesh(devices, ("m",), axis_types=(AxisType.Auto,))

    def collectives_of(function):
        mapped = jax.shard_map(function, mesh=mesh, in_specs=P("m"), out_specs=P("m"), check_vma=False)
        x = jax.ShapeDtypeStruct((4 * N,), jnp.float32, sharding=NamedSharding(mesh, P("m")))
        return collectives(jax.jit(mapped).lower(x).compile().as_text())

    return collectives_of


def summed(x, y=1.0):
    return jax.lax.psum(x * y, "m")


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda x: x + 1, {}),
        (summed, {"all-reduce": Collective(1, 4 * N)}),
        (lambda x: jax.lax.all_gather(x, "m").max(0), {"all-gather": Collective(1, 16 * N)}),
        (
            lambda x: (
                jax.lax.ppermute(x, "m", [(0, 1), (1, 0)]) + jax.lax.all_to_all(x.reshape(4, -1), "m", 0, 0).max()
            ),
            {"collective-permute": Collective(1, 4 * N), "all-to-all": Collective(1, 4 * N)},
        ),
    ],
    ids=["none", "sum", "gather", "permute and all to all"],
)
def test_collectives_have_their_kinds_and_bytes(compiled_collectives, function, expected):
    assert compiled_collectives(function) == expected


def test_scan_counts_every_iteration(compiled_collectives):
    def three(x):
        return jax.lax.scan(lambda c, y: (summed(c, y), None), x, jnp.arange(3.0))[0]

    assert compiled_collectives(three) == {"all-reduce": Collective(3, 3 * 4 * N)}
    nested = compiled_collectives(
        lambda x: jax.lax.scan(lambda c, y: (three(c) + y, summed(c).max()), x, jnp.arange(5.0))[0]
    )
    assert nested["all-reduce"] == Collective(5 * 3, 5 * 3 * 4 * N)  # the unused output's sum is compiled away


def test_loop_of_unknown_length_counts_once(compiled_collectives):
    collectives_of_loop = compiled_collectives(lambda x: jax.lax.while_loop(lambda c: c[0] < 100, summed, x))
    assert collectives_of_loop == {"all-reduce": Collective(1, 4 * N)}


def test_every_branch_of_a_conditional_counts(compiled_collectives):
    either = compiled_collectives(
        lambda x: jax.lax.cond(x[0] > 0, summed, lambda y: jax.lax.all_gather(y, "m").max(0), x)
    )
    assert either == {"all-gather": Collective(1, 16 * N), "all-reduce": Collective(1, 4 * N)}


# The TPU compiler's text of a gather that overlaps a product: three fusions, one collective.
CHAIN = """
%start (p: bf16[8]) -> bf16[32] {
  %g.1 = bf16[32]{0} all-gather(%p), channel_id=1, frontend_attributes={chain_id="0"}
}
%product (p: bf16[8]) -> bf16[32] {
  %g.2 = bf16[32]{0} all-gather(%p), channel_id=1, frontend_attributes={chain_id="0"}
}
ENTRY %main (p: bf16[8]) -> bf16[32] {
  %s = bf16[32]{0} fusion(%p), kind=kCustom, calls=%start
  %f = bf16[32]{0} fusion(%s), kind=kCustom, calls=%product
  %r = (bf16[8], bf16[8]) all-reduce-start(%f), channel_id=2, to_apply=%add
  ROOT %d = bf16[8]{0} all-reduce-done(%r)
}
%add (p: bf16[]) -> bf16[] {
  ROOT %p = bf16[] parameter(0)
}
"""


def test_collective_that_overlaps_other_work_counts_once():
    assert collectives(CHAIN) == {"all-gather": Collective(1, 64), "all-reduce": Collective(1, 16)}


@pytest.mark.parametrize(
    ("shape", "size"),
    [
        ("f32[]", 4),
        ("bf16[2,3]{1,0:T(8,128)(2,1)S(1)}", 12),
        ("pred[7]", 7),
        ("(s32[2]{0}, /*index=1*/u8[5], token[])", 13),
        ("f8e4m3fn[3]", 3),
        ("s4[6]", 3),
        ("c64[2]", 16),
    ],
)
def test_shape_bytes_of_arrays_and_tuples(shape, size):
    assert shape_bytes(shape) == size


def test_kernel_names_are_listed_once():
    call = 'custom-call(%a, %b), custom_call_target="tpu_custom_call", x'
    other = 'custom-call(), custom_call_target="AllocateBuffer"'
    text = f"%one.3 = f32[] {call}\n%one.4.1 = f32[] {call}\n%two = (f32[], s32[]) {call}\n%c = f32[] {other}"
    assert kernels(text) == ("one", "two")
