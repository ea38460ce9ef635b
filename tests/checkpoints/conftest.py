import json

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from jaxtrace import init_params
from jaxtrace.checkpoints.weights import export_weights
from jaxtrace.models.families.llama import decoder_config

CONFIG = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 13,
    "hidden_size": 8,
    "intermediate_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 32,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "hidden_act": "silu",
    "eos_token_id": 2,
}


class Folder:
    """A checkpoint on disk that a test then damages."""

    def __init__(self, path):
        self.path = path
        self.config = dict(CONFIG)
        parsed = decoder_config(self.config, "test")
        self.weights = export_weights(parsed, init_params(parsed, jax.random.key(0)))

    def write(self):
        self.path.mkdir(exist_ok=True)
        (self.path / "config.json").write_text(json.dumps(self.config))
        save_file(self.weights, self.path / "model.safetensors")
        return str(self.path)

    def write_sharded(self):
        """The weights in two files, beside an index."""
        self.write()
        (self.path / "model.safetensors").unlink()
        names = sorted(self.weights)
        parts = {"one.safetensors": names[::2], "two.safetensors": names[1::2]}
        for file, inside in parts.items():
            save_file({name: self.weights[name] for name in inside}, self.path / file)
        self.write_index({name: file for file, inside in parts.items() for name in inside})
        return str(self.path)

    def write_index(self, weight_map):
        index = {"metadata": {"total_size": 0}, "weight_map": weight_map}
        (self.path / "model.safetensors.index.json").write_text(json.dumps(index))


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path / "tiny")


@pytest.fixture
def biggest():
    """The largest difference between the parameters of two models."""

    def difference(one, other):
        assert jax.tree.structure(one.params) == jax.tree.structure(other.params)
        pairs = zip(jax.tree.leaves(one.params), jax.tree.leaves(other.params), strict=True)
        return max(float(np.abs(np.asarray(a) - np.asarray(b)).max()) for a, b in pairs)

    return difference
