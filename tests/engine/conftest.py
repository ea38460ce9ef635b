import jax
import numpy as np
import pytest

from jaxtrace import DecoderConfig, Model, init_params
from jaxtrace.models.config import LayerKind
from jaxtrace.models.decoder import stack_layers
from jaxtrace.models.rope_config import Llama3Scaling, Rope

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
    """Return a tiny random Llama without a tokenizer; large weights make its heads attend to different positions."""
    params = jax.tree.map(lambda x: x * (1 if x.ndim == 1 else 8), init_params(CONFIG, jax.random.key(0)))
    return Model("tiny", CONFIG, params)


@pytest.fixture(scope="session")
def stacked(model):
    """Return the same model with stacked layers."""
    return Model("tiny", CONFIG, stack_layers(CONFIG, model.params))


@pytest.fixture(scope="session")
def prompts():
    """Return prompts of unequal lengths; with 20 more tokens each, all fit into 64 cache slots."""
    rng = np.random.default_rng(1)
    return [rng.integers(0, CONFIG.vocab_size, size).tolist() for size in (5, 1, 40, 17)]


@pytest.fixture(scope="session")
def generated(model, prompts):
    """Return 20 greedy steps after each prompt, with all probes."""
    return model.generate(prompts, max_new_tokens=20)


@pytest.fixture(scope="session")
def scored(model, prompts):
    """Return every position of the prompts, with all probes."""
    return model.score(prompts)
