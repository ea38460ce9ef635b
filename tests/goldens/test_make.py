"""The stored goldens equal what transformers computes today."""

import numpy as np
import pytest

from tests.goldens import make
from tests.goldens.golden import FOLDER, Golden


@pytest.mark.parametrize("name", make.CASES)
def test_make_reproduces_the_golden(name):
    stored, made = Golden.load(FOLDER / f"{name}.npz"), make.make(name)
    np.testing.assert_array_equal(made.tokens, stored.tokens)
    assert set(made.weights) == set(stored.weights)
    for weight, values in stored.weights.items():
        np.testing.assert_array_equal(made.weights[weight], values, err_msg=weight)
    present = {part: values for part, values in vars(stored.run).items() if values is not None}
    assert set(present) == {part for part, values in vars(made.run).items() if values is not None}
    for part, values in present.items():
        np.testing.assert_allclose(getattr(made.run, part), values, rtol=0, atol=1e-5, err_msg=part)
