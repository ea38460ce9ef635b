"""Parity with transformers where there is no torch."""

import jax
import numpy as np
import pytest

import jaxtrace
from tests.goldens.golden import FOLDER, Golden
from tests.models.parity import assert_parity, everything
from tests.tracing.reference import assert_metrics, metrics

NAMES = sorted(path.stem for path in FOLDER.glob("*.npz"))


@pytest.fixture(scope="module", params=NAMES)
def golden(request):
    return Golden.load(FOLDER / f"{request.param}.npz")


@pytest.fixture
def checkpoint(golden, tmp_path):
    golden.write_checkpoint(tmp_path)
    return str(tmp_path)


@pytest.mark.parametrize("stacked", [False, True], ids=["unrolled", "stacked"])
def test_parity(golden, checkpoint, stacked):
    compute = jax.jit(everything, static_argnames="config")
    assert_parity(jaxtrace.load(checkpoint, stacked=stacked), golden.tokens, golden.run, compute=compute)


def test_trace_of_the_whole_text(golden, checkpoint):
    row = jaxtrace.load(checkpoint).score([golden.tokens.tolist()]).rows[0]
    want = metrics(golden.run, np.append(golden.tokens[1:], -1))
    assert_metrics(row.metrics, want, golden.run.lens_logits)


def test_goldens_are_small():
    assert len(NAMES) == 3
    assert max((FOLDER / f"{name}.npz").stat().st_size for name in NAMES) < 200_000
