"""Real compilation for TPUs on a machine without one: libtpu brings their compiler."""

import os

os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")  # before libtpu is loaded
os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")

import jax
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec

TOPOLOGIES = ("v4:2x2x1", "v5e:2x2", "v5p:2x2x1", "v6e:2x2", "tpu7x:2x2x1")


def compile_for(topology, function, *shapes):
    """Compile `function` for one core of a slice; the arguments are trees of `jax.ShapeDtypeStruct`."""
    devices = topologies.get_topology_desc(topology, platform="tpu").devices
    sharding = NamedSharding(Mesh(devices[:1], ("one",)), PartitionSpec())
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), shapes)
    return jax.jit(function, out_shardings=sharding).lower(*shapes).compile()


def assert_fused(compiled, stored):
    """Check that a program is one Mosaic kernel and needs fewer temporary bytes than `stored`."""
    assert compiled.as_text().count('custom_call_target="tpu_custom_call"') == 1
    assert compiled.memory_analysis().temp_size_in_bytes < stored
