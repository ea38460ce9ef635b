"""Reading by byte range: any part of a parameter is what cutting it out of the whole gives, and no more is read."""

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxtrace.checkpoints.safetensors import Tensors
from jaxtrace.checkpoints.table import leaves, match
from jaxtrace.checkpoints.weights import Weights, _read
from jaxtrace.models.decoder import abstract_params
from jaxtrace.models.families import FAMILIES
from tests.checkpoints.conftest import CONFIG, GPT2, Folder


class Counting(Tensors):
    """Tensors that count what is read of them."""

    entries = 0

    def read(self, name, index):
        found = super().read(name, index)
        self.entries += found.size
        return found


@pytest.fixture(
    scope="module", params=[CONFIG | {"attention_bias": True}, GPT2], ids=lambda config: config["model_type"]
)
def stored(request, tmp_path_factory):
    """(tensors, whole parameters by place, the tensor and use of each)."""
    folder = Folder(tmp_path_factory.mktemp("ranges") / "tiny", request.param)
    rng = np.random.default_rng(0)
    for name, values in folder.weights.items():
        folder.weights[name] = rng.standard_normal(values.shape).astype(ml_dtypes.bfloat16)
    folder.write()
    config = FAMILIES[request.param["model_type"]].decoder_config(request.param, "test")
    with Counting(folder.path) as tensors:
        here = jnp.zeros(()).sharding
        wanted = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, jnp.float32, sharding=here), abstract_params(config)
        )
        weights = Weights(config, tensors, "test")
        whole = {path: np.asarray(array) for path, array in leaves(weights.read((), wanted))}
        uses = {use.path: (name, use) for name, uses in match(config, tensors, "test").items() for use in uses}
        assert set(uses) == set(whole)
        yield tensors, whole, uses


@given(st.data())
def test_parts(stored, data):
    tensors, whole, uses = stored
    path = data.draw(st.sampled_from(sorted(uses, key=str)))
    name, use = uses[path]
    bounds = []
    for size in use.shape:
        start = data.draw(st.integers(0, size - 1))
        bounds.append((start, data.draw(st.integers(start + 1, size))))
    tensors.entries = 0
    part = _read(tensors, name, use, tuple(bounds))
    cut = whole[path][tuple(slice(*b) for b in bounds)]
    assert part.dtype == ml_dtypes.bfloat16
    np.testing.assert_array_equal(part.astype(np.float32), cut)
    if use.folded is None:
        assert tensors.entries == cut.size
    else:  # a part of several heads is read with the rest of those heads
        width = use.shape[use.folded + 1]
        (first, last), (start, end) = bounds[use.folded : use.folded + 2]
        assert tensors.entries == cut.size * (width if last - first > 1 else end - start) // (end - start)
