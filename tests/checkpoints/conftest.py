import functools
import json

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from jaxtrace import init_params
from jaxtrace.checkpoints.weights import export_weights
from jaxtrace.models.families import FAMILIES

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

GPT2 = {"model_type": "gpt2", "vocab_size": 13, "n_embd": 8, "n_layer": 2, "n_head": 2, "n_positions": 32}
GPT_NEOX = {name: CONFIG[name] for name in CONFIG if name not in ("model_type", "num_key_value_heads", "rms_norm_eps")}
GPT_NEOX = GPT_NEOX | {"model_type": "gpt_neox", "hidden_act": "gelu"}
PHI3 = CONFIG | {"model_type": "phi3"}  # 2 query heads and 1 key/value head: unequal parts of one tensor
GPT_OSS = CONFIG | {"model_type": "gpt_oss", "head_dim": 4, "num_local_experts": 3, "num_experts_per_tok": 2}
# Two kinds of layers in turn; a stack of pairs leaves one layer over.
GEMMA2 = CONFIG | {"model_type": "gemma2", "head_dim": 6, "num_hidden_layers": 5, "sliding_window": 4}
GEMMA2 |= {"hidden_act": "gelu_pytorch_tanh", "hidden_activation": "gelu_pytorch_tanh", "query_pre_attn_scalar": 6}


@functools.cache
def random_weights(config):
    """Random weights of a config, given as JSON."""
    settings = json.loads(config)
    parsed = FAMILIES[settings["model_type"]].decoder_config(settings, "test")
    return export_weights(parsed, init_params(parsed, jax.random.key(0)))


class Folder:
    """A checkpoint on disk that a test changes or damages."""

    def __init__(self, path, config):
        self.path = path
        self.config = dict(config)
        self.weights = dict(random_weights(json.dumps(config)))

    def write(self):
        self.path.mkdir(exist_ok=True)
        (self.path / "config.json").write_text(json.dumps(self.config))
        save_file(self.weights, self.path / "model.safetensors")
        return str(self.path)

    def write_sharded(self):
        """Write the weights in two files and an index."""
        self.write()
        (self.path / "model.safetensors").unlink()
        names = sorted(self.weights)
        parts = {"one.safetensors": names[::2], "two.safetensors": names[1::2]}
        for file, names_in_file in parts.items():
            save_file({name: self.weights[name] for name in names_in_file}, self.path / file)
        self.write_index({name: file for file, names_in_file in parts.items() for name in names_in_file})
        return str(self.path)

    def write_index(self, weight_map):
        index = {"metadata": {"total_size": 0}, "weight_map": weight_map}
        (self.path / "model.safetensors.index.json").write_text(json.dumps(index))


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path / "tiny", CONFIG)


@pytest.fixture
def folder_of(tmp_path):
    """A function that returns a checkpoint of a given config."""
    return lambda config: Folder(tmp_path / "tiny", config)


@pytest.fixture
def max_difference():
    """A function that returns the largest difference between the parameters of two models."""

    def difference(one, other):
        assert jax.tree.structure(one.params) == jax.tree.structure(other.params)
        pairs = zip(jax.tree.leaves(one.params), jax.tree.leaves(other.params), strict=True)
        return max(float(np.abs(np.asarray(a) - np.asarray(b)).max()) for a, b in pairs)

    return difference
