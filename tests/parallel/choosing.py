"""Choice of a mesh for a model on eight devices."""

import dataclasses

import jax
import pytest

import jaxtrace
from jaxtrace import ConfigError, DecoderConfig
from jaxtrace.parallel.automatic import automatic_mesh, resolve_mesh, weight_bytes

CONFIG = DecoderConfig("llama", 32, 64, 4, 8, 2, 8, 96, 64)


def check():
    """Raise AssertionError if a chosen mesh is wrong."""
    whole = weight_bytes(CONFIG, jaxtrace.mesh(), 4)
    assert whole == 4 * sum(x.size for x in jax.tree.leaves(jaxtrace.init_params(CONFIG, jax.random.key(0))))
    # The fewest parts that fit into 60 % of a device's memory, or the most parts if none fit.
    for parts, shape in ((0.9, (8, 1)), (1.8, (4, 2)), (3, (2, 4)), (4.5, (1, 8)), (100, (1, 8))):
        assert sizes(automatic_mesh(CONFIG, 4, memory=int(whole / parts / 0.6))) == shape, parts
    # With unknown memory: the most parts that have key/value heads of their own.
    assert sizes(automatic_mesh(CONFIG, 4)) == (4, 2)
    assert sizes(automatic_mesh(dataclasses.replace(CONFIG, kv_heads=8), 4)) == (1, 8)
    assert sizes(automatic_mesh(dataclasses.replace(CONFIG, num_heads=5, kv_heads=5), 4)) == (8, 1)
    assert automatic_mesh(CONFIG, 4, jax.devices()[:1]) is None
    assert resolve_mesh(None, CONFIG, 4) is None
    assert resolve_mesh("auto", CONFIG, 4) == automatic_mesh(CONFIG, 4)
    assert dict(resolve_mesh("data=2,model=4", CONFIG, 4).shape) == {"data": 2, "model": 2, "copies": 2}
    with pytest.raises(ConfigError, match="mesh model=3: 3 parts do not divide 8 heads"):
        resolve_mesh("model=3", CONFIG, 4)


def sizes(mesh):
    return mesh.shape["data"], mesh.shape["model"]
