"""Reading by byte range: any part of a parameter equals a cut of the whole, and nothing more is read."""

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxtrace.checkpoints.safetensors import Tensors
from jaxtrace.checkpoints.table import leaves, match
from jaxtrace.checkpoints.weights import TensorWeights, read_part
from jaxtrace.models.decoder import abstract_params
from jaxtrace.models.families import FAMILIES
from tests.checkpoints.conftest import CONFIG, GPT2, GPT_NEOX, GPT_OSS, PHI3, Folder


class Counting(Tensors):
    """Tensors that count the entries they read."""

    entries = 0

    def read(self, name, index):
        part = super().read(name, index)
        self.entries += part.size
        return part


@pytest.fixture(
    scope="module",
    params=[CONFIG | {"attention_bias": True}, GPT2, GPT_NEOX, GPT_OSS, PHI3],
    ids=lambda config: config["model_type"],
)
def stored(request, tmp_path_factory):
    """Tensors, whole parameters by path, and (tensor name, filled parameter) by path."""
    folder = Folder(tmp_path_factory.mktemp("ranges") / "tiny", request.param)
    rng = np.random.default_rng(0)
    for name, values in folder.weights.items():
        folder.weights[name] = rng.standard_normal(values.shape).astype(ml_dtypes.bfloat16)
    folder.write()
    config = FAMILIES[request.param["model_type"]].decoder_config(request.param, "test")
    with Counting(folder.path) as tensors:
        default = jnp.zeros(()).sharding
        target = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, jnp.float32, sharding=default), abstract_params(config)
        )
        weights = TensorWeights(config, tensors, "test")
        whole = {path: np.asarray(array) for path, array in leaves(weights.read((), target))}
        table = match(config, tensors, "test")
        sources = {param.path: (name, param) for name, params in table.items() for param in params}
        assert set(sources) == set(whole)
        yield tensors, whole, sources


@given(st.data())
def test_a_part_equals_a_cut_of_the_whole(stored, data):
    tensors, whole, sources = stored
    path = data.draw(st.sampled_from(sorted(sources, key=str)))
    name, param = sources[path]
    bounds = []
    for size in param.shape:
        start = data.draw(st.integers(0, size - 1))
        bounds.append((start, data.draw(st.integers(start + 1, size))))
    tensors.entries = 0
    part = read_part(tensors, name, param, tuple(bounds))
    cut = whole[path][... if param.expert is None else param.expert][tuple(slice(*b) for b in bounds)]
    assert part.dtype == ml_dtypes.bfloat16
    np.testing.assert_array_equal(part.astype(np.float32), cut)
    between = (len(cut) - 1) * cut[0].size if param.stride and param.folded is None else 0  # parts that take turns
    assert tensors.entries == cut.size + between
