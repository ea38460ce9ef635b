"""float32 as a sum of bfloat16 numbers, which is what the GPU's matrix unit multiplies."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtrace.kernels.gpu_tiles import pieces


@pytest.mark.parametrize(("dtype", "count"), [("bfloat16", 1), ("float16", 3), ("float32", 3)])
def test_pieces_add_up_exactly(dtype, count, rng):
    x = jnp.asarray(rng.standard_cauchy((5, 400)), dtype)
    parts = jax.jit(pieces)(x)
    assert parts.shape == (count, 5, 400)
    assert parts.dtype == jnp.bfloat16
    np.testing.assert_array_equal(np.asarray(parts, np.float64).sum(0), np.asarray(x, np.float64))
