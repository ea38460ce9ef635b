"""A checkpoint on eight devices: each parameter where it belongs, and the same traces on every mesh."""

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

# (mesh, layers stacked, whether to trace)
MESHES = (
    ("model=8", False, True),
    ("model=8", True, False),
    ("data=2,model=4", False, False),
    ("data=2,model=4", True, True),
)
PROMPTS = [[1, 5, 3], [2, 2, 7, 8, 30], [4, 9]]  # one more than is split evenly


def check(source, converted, new):
    """Raises AssertionError for what is not where, or what, it should be.

    Args:
      source: directory of a checkpoint.
      converted: of what it was converted to.
      new: where it is converted to once more, by eight devices.
    """
    convert(open_checkpoint(source), Path(new), mesh="data=2,model=4")
    one = jaxtrace.load(source, stacked=False, mesh=None)
    wanted = one.generate(PROMPTS, max_new_tokens=3)
    for mesh, stacked, traced in MESHES:
        models = [jaxtrace.load(name, mesh=mesh, stacked=stacked) for name in (source, converted, new)]
        where = jax.tree.leaves(param_shardings(one.config, make_mesh(mesh), stacked=stacked))
        whole = jax.tree.leaves(jaxtrace.load(source, stacked=stacked, mesh=None).params)
        for model in models:
            assert held(model.params) == {weight_bytes(one.config, make_mesh(mesh), 4)}
            for leaf, sharding, values in zip(jax.tree.leaves(model.params), where, whole, strict=True):
                assert leaf.sharding == sharding
                np.testing.assert_array_equal(np.asarray(leaf), np.asarray(values))
        if traced:
            compare(models[stacked].generate(PROMPTS, max_new_tokens=3), wanted)
    reads_once(source)


def compare(found, wanted):
    for row, other in zip(found.rows, wanted.rows, strict=True):
        assert set(row.metrics) == set(other.metrics)
        for name, values in other.metrics.items():
            np.testing.assert_allclose(row.metrics[name], values, rtol=1e-5, atol=1e-5, err_msg=name)


def held(params):
    """Bytes of the parameters that each device has."""
    found = Counter()
    for leaf in jax.tree.leaves(params):
        for shard in leaf.addressable_shards:
            found[shard.device] += shard.data.nbytes
    return {*found.values()}


def reads_once(source):
    """Each tensor is read once, however many devices hold a part of it."""
    entries = {}
    read = Tensors.read

    def counted(self, name, index):
        found = read(self, name, index)
        entries[name] = entries.get(name, 0) + found.size / math.prod(self.shape(name))
        return found

    Tensors.read = counted
    jaxtrace.load(source, mesh="data=2,model=4")
    for name, times in entries.items():
        assert times == 1, name
