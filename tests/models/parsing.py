"""Configs that a family reads, and refusals of others."""

import pytest

from jaxtrace import ConfigError
from jaxtrace.models.families import FAMILIES

# Attributes without which transformers builds no model.
NEEDED = {"dots1": {"n_routed_experts": 8, "n_shared_experts": 1, "num_experts_per_tok": 2}}


def parsed(config):
    return FAMILIES[config["model_type"]].decoder_config(NEEDED.get(config["model_type"], {}) | config, "test")


def refused(config, part):
    with pytest.raises(ConfigError) as error:
        parsed(config)
    assert part in str(error.value)
    assert "\n" not in str(error.value)
