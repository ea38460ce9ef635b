"""A checkpoint on eight devices: every parameter has its sharding, and traces are the same on every mesh."""

import math
from collections import Counter
from pathlib import Path

import jax
import numpy as np

import jaxtrace
from jaxtrace.checkpoints.convert import convert
from jaxtrace.checkpoints.huggingface import open_checkpoint
from jaxtrace.checkpoints.safetensors import Tensors
from jaxtrace.parallel.automatic import weight_bytes
from jaxtrace.parallel.mesh import make_mesh
from jaxtrace.parallel.sharding import param_shardings

# (mesh, layers stacked, traced); the last is the one of "one".
MESHES = (
    ("model=8", False, True),
    ("model=8", True, False),
    ("data=2,model=4", False, False),
    ("data=2,model=4", True, True),
)
PROMPTS = [[1, 5, 3], [2, 2, 7, 8, 30], [4, 9]]  # the mesh does not divide the number of prompts


def check(source, converted, new, meshes):
    """Raise AssertionError if a parameter has a wrong value or sharding, or a trace differs.

    Args:
      source: directory of a checkpoint.
      converted: directory of the converted checkpoint.
      new: directory for a conversion by eight devices.
      meshes: "one" for the last mesh, "all" for every mesh.
    """
    convert(open_checkpoint(source), Path(new), mesh="data=2,model=4")
    one = jaxtrace.load(source, stacked=False, mesh=None)
    expected = one.generate(PROMPTS, max_new_tokens=3)
    for mesh, stacked, traced in MESHES if meshes == "all" else MESHES[-1:]:
        models = [jaxtrace.load(name, mesh=mesh, stacked=stacked) for name in (source, converted, new)]
        shardings = jax.tree.leaves(param_shardings(one.config, make_mesh(mesh), stacked=stacked))
        whole = jax.tree.leaves(jaxtrace.load(source, stacked=stacked, mesh=None).params)
        for model in models:
            assert device_bytes(model.params) == {weight_bytes(one.config, make_mesh(mesh), 4)}
            for leaf, sharding, values in zip(jax.tree.leaves(model.params), shardings, whole, strict=True):
                assert leaf.sharding == sharding
                np.testing.assert_array_equal(np.asarray(leaf), np.asarray(values))
        if traced:
            compare(models[stacked].generate(PROMPTS, max_new_tokens=3), expected)
    assert_read_once(source)


def compare(actual, expected):
    for row, other in zip(actual.rows, expected.rows, strict=True):
        assert set(row.metrics) == set(other.metrics)
        for name, values in other.metrics.items():
            np.testing.assert_allclose(row.metrics[name], values, rtol=1e-5, atol=1e-5, err_msg=name)


def device_bytes(params):
    """Return the distinct numbers of parameter bytes per device."""
    sizes = Counter()
    for leaf in jax.tree.leaves(params):
        for shard in leaf.addressable_shards:
            sizes[shard.device] += shard.data.nbytes
    return {*sizes.values()}


def assert_read_once(source):
    """Assert that each tensor is read once, although several devices hold its parts."""
    times_read = {}
    read = Tensors.read

    def counted(self, name, index):
        part = read(self, name, index)
        times_read[name] = times_read.get(name, 0) + part.size / math.prod(self.shape(name))
        return part

    Tensors.read = counted
    jaxtrace.load(source, mesh="data=2,model=4")
    for name, times in times_read.items():
        assert times == 1, name
