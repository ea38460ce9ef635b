"""Real compilation for TPUs that are not there: libtpu brings their compiler."""

import os

os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")  # before libtpu is loaded
os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")

import jax
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec

TOPOLOGIES = ("v4:2x2x1", "v5e:2x2", "v5p:2x2x1", "v6e:2x2", "tpu7x:2x2x1")


def compile_for(topology, function, *shapes):
    """`function` compiled for one core of a slice, its arguments given as trees of `jax.ShapeDtypeStruct`."""
    devices = topologies.get_topology_desc(topology, platform="tpu").devices
    sharding = NamedSharding(Mesh(devices[:1], ("one",)), PartitionSpec())
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), shapes)
    return jax.jit(function, out_shardings=sharding).lower(*shapes).compile()


def assert_fused(compiled, stored):
    """One Mosaic kernel, and less memory beside arguments and results than an array of so many bytes would take."""
    assert compiled.as_text().count('custom_call_target="tpu_custom_call"') == 1
    assert compiled.memory_analysis().temp_size_in_bytes < stored
