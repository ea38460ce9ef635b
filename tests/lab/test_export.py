"""Written checkpoints of every family load strictly, and give the same logits here and in transformers."""

import jax
import ml_dtypes
import numpy as np
import pytest
from pydantic import ValidationError

from jaxtrace.checkpoints.huggingface import open_checkpoint
from jaxtrace.lab.shapes import Shape
from jaxtrace.lab.train import save_checkpoint
from jaxtrace.models.decoder import init_params
from jaxtrace.models.forward import forward_logits

FAMILIES = ("llama", "gemma", "qwen", "gpt2")
logits_of = jax.jit(forward_logits, static_argnums=0)
TOKENS = np.random.default_rng(0).integers(3, 512, (2, 24)).astype(np.int32)


@pytest.fixture(scope="module", params=FAMILIES)
def written(request, tmp_path_factory):
    """Shape, parameters rounded to bfloat16, their logits, and the directory of a written checkpoint."""
    shape, directory = Shape(family=request.param, layers=2, width=32, vocab=512), tmp_path_factory.mktemp("model")
    rng = np.random.default_rng(1)
    params = jax.tree.map(
        lambda x: (x + rng.normal(0, 0.05, x.shape)).astype(ml_dtypes.bfloat16).astype(np.float32),
        jax.tree.map(np.asarray, init_params(shape.decoder, jax.random.key(0))),
    )
    save_checkpoint(directory, shape, params)
    return shape, params, np.asarray(logits_of(shape.decoder, params, TOKENS)), directory


def test_a_written_checkpoint_loads_as_the_same_model(written):
    shape, params, logits, directory = written
    checkpoint = open_checkpoint(str(directory))
    assert checkpoint.config == shape.decoder
    loaded = checkpoint.read(np.float32)
    assert jax.tree.structure(loaded) == jax.tree.structure(params)
    np.testing.assert_array_equal(logits_of(shape.decoder, loaded, TOKENS), logits)


def test_transformers_computes_the_same_logits(written):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    *_, logits, directory = written
    model = transformers.AutoModelForCausalLM.from_pretrained(
        directory, dtype=torch.float32, attn_implementation="eager"
    )
    with torch.no_grad():
        expected = model(torch.tensor(TOKENS, dtype=torch.long)).logits.numpy()
    np.testing.assert_allclose(logits, expected, atol=2e-5)


@pytest.mark.parametrize("changes", [{"family": "bert"}, {"layers": 0}, {"width": 40}, {"width": 0}])
def test_invalid_shapes_are_refused(changes):
    with pytest.raises(ValidationError):
        Shape.model_validate({"family": "llama", "layers": 2, "width": 64} | changes)
