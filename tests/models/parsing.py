"""Configs that a family reads, and refusals of others."""

import pytest

from jaxtrace import ConfigError
from jaxtrace.models.families import FAMILIES

# Attributes without which transformers builds no model.
NEEDED = {"dots1": {"n_routed_experts": 8, "n_shared_experts": 1, "num_experts_per_tok": 2}}

SCALED_QUERIES = {"llama_4_scaling_beta": 0.5, "original_max_position_embeddings": 16}
SCALED = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
SCALED["original_max_position_embeddings"] = 64
LONGROPE = {"type": "longrope", "short_factor": [1.0] * 48, "long_factor": [2.0] * 48}


def parsed(config):
    return FAMILIES[config["model_type"]].decoder_config(NEEDED.get(config["model_type"], {}) | config, "test")


def refused(config, part):
    with pytest.raises(ConfigError) as error:
        parsed(config)
    assert part in str(error.value)
    assert "\n" not in str(error.value)
