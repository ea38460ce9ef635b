"""Run as a program on eight virtual CPU devices: the same traces on every mesh, each parameter where it belongs.

python -m tests.parallel.eight_devices SOURCE CONVERTED NEW
"""

import math
import sys
from pathlib import Path

import jax
import numpy as np

import jaxtrace
from jaxtrace.checkpoints.convert import convert
from jaxtrace.checkpoints.huggingface import open_checkpoint
from jaxtrace.checkpoints.safetensors import Tensors
from jaxtrace.parallel.mesh import make_mesh
from jaxtrace.parallel.sharding import param_shardings
from tests.parallel import sharded_kernels

# (mesh, layers stacked, whether to trace)
MESHES = (
    ("model=8", False, True),
    ("model=8", True, False),
    ("data=2,model=4", False, False),
    ("data=2,model=4", True, True),
    ("data=1,model=3", False, False),
)
PROMPTS = [[1, 5, 3], [2, 2, 7, 8, 30]]


def main(source, converted, new):
    assert jax.device_count() == 8
    convert(open_checkpoint(source), Path(new), mesh="data=2,model=4")
    one = jaxtrace.load(source, stacked=False)
    wanted = one.generate(PROMPTS, max_new_tokens=3)
    for mesh, stacked, traced in MESHES:
        models = [jaxtrace.load(name, mesh=mesh, stacked=stacked) for name in (source, converted, new)]
        where = jax.tree.leaves(param_shardings(one.config, make_mesh(mesh), stacked=stacked))
        whole = jax.tree.leaves(jaxtrace.load(source, stacked=stacked).params)
        for model in models:
            for leaf, sharding, values in zip(jax.tree.leaves(model.params), where, whole, strict=True):
                assert leaf.sharding == sharding
                np.testing.assert_array_equal(np.asarray(leaf), np.asarray(values))
        if traced:
            compare(models[stacked].generate(PROMPTS, max_new_tokens=3), wanted)
    reads_once(source)
    sharded_kernels.check()


def compare(found, wanted):
    for row, other in zip(found.rows, wanted.rows, strict=True):
        assert set(row.metrics) == set(other.metrics)
        for name, values in other.metrics.items():
            np.testing.assert_allclose(row.metrics[name], values, rtol=1e-5, atol=1e-5, err_msg=name)


def reads_once(source):
    """Each tensor is read once, however many devices hold it; but whole heads, where devices share a head."""
    entries = {}
    read = Tensors.read

    def counted(self, name, index):
        found = read(self, name, index)
        entries[name] = entries.get(name, 0) + found.size / math.prod(self.shape(name))
        return found

    Tensors.read = counted
    jaxtrace.load(source, mesh="data=2,model=4")
    for name, times in entries.items():
        assert times == (4 if "k_proj" in name or "v_proj" in name else 1), name


if __name__ == "__main__":
    main(*sys.argv[1:])
