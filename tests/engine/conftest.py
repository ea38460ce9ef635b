import jax
import numpy as np
import pytest

from jaxtrace import DecoderConfig, Model, init_params
from jaxtrace.models.config import LayerKind, Llama3Scaling, Rope
from jaxtrace.models.decoder import stack_layers

CONFIG = DecoderConfig(
    family="llama",
    vocab_size=37,
    embed_dim=32,
    num_layers=3,
    num_heads=4,
    kv_heads=2,
    head_dim=8,
    feed_forward=48,
    context=96,
    pattern=(LayerKind(rope=Rope(500.0, Llama3Scaling(8.0, 1.0, 4.0, 16))),),
)


@pytest.fixture(scope="session")
def model():
    """A tiny random Llama without a tokenizer; its weights are large enough that heads look in different places."""
    params = jax.tree.map(lambda x: x * (1 if x.ndim == 1 else 8), init_params(CONFIG, jax.random.key(0)))
    return Model("tiny", CONFIG, params)


@pytest.fixture(scope="session")
def stacked(model):
    """The same model with its layers stacked."""
    return Model("tiny", CONFIG, stack_layers(CONFIG, model.params))


@pytest.fixture(scope="session")
def prompts():
    """Prompts of unequal lengths, one of a single token; with 20 more tokens each, all fit the same 64 cache slots."""
    rng = np.random.default_rng(1)
    return [rng.integers(0, CONFIG.vocab_size, size).tolist() for size in (5, 1, 40, 17)]


@pytest.fixture(scope="session")
def generated(model, prompts):
    """20 greedy steps after each prompt, all probes."""
    return model.generate(prompts, max_new_tokens=20)


@pytest.fixture(scope="session")
def scored(model, prompts):
    """Every position of the prompts, all probes."""
    return model.score(prompts)
