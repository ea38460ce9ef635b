"""Published sizes run with random weights: the step is traced at full width, and a narrow copy generates."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest

import jaxtrace as jt
from jaxtrace import Probes
from jaxtrace.checkpoints.random import RandomCheckpoint
from jaxtrace.figures.tables.checkpoint import published_table
from jaxtrace.model import Model
from jaxtrace.models.decoder import abstract_params
from jaxtrace.models.published import PUBLISHED
from jaxtrace.planning.times import Rates

ALL, FEW = Probes.all(), Probes.of("output", "attention")
RATES = Rates(1e10, 1e11, 1e9, "cpu")
FIRST = {model.family: model for model in reversed(PUBLISHED)}.values()  # the first size of each family
# In CI the first size of each family, if it is traced in a second: not those that see, nor those of unlike layers.
SIZES = [
    pytest.param(
        model,
        id=model.name,
        marks=[pytest.mark.nightly]
        * (model not in FIRST or bool(model.config.vision) or len(model.config.pattern) > 10),
    )
    for model in PUBLISHED
]


def one_period(config):
    return dataclasses.replace(config, num_layers=len(config.pattern))


def narrow(config):
    """Return a config with the layers, heads and rotary positions of another and little else of its size."""
    vision = config.vision and dataclasses.replace(
        config.vision, embed_dim=16, feed_forward=16, num_heads=2, num_layers=1, global_layers=1, outputs=()
    )
    names = [
        field.name for field in dataclasses.fields(config) if "vocab" in field.name and getattr(config, field.name)
    ]
    sizes = {"embed_dim": 32, "feed_forward": 32} | dict.fromkeys(names, 61)
    return dataclasses.replace(one_period(config), vision=vision, **sizes)


NARROW = {narrow(model.config): model.name for model in reversed(PUBLISHED)}


@pytest.mark.parametrize("model", SIZES)
def test_the_step_of_a_published_size_is_traced_without_its_weights(model):
    config, tokens = one_period(model.config), jax.ShapeDtypeStruct((1, 8), jnp.int32)

    def steps(params, tokens):
        state = jt.init_state(config, params, batch=1, slots=16, probes=FEW)
        state = jt.prefill(params, state, tokens, jnp.array([8]), config=config, probes=FEW)
        return jt.decode_step(params, state, config=config, probes=FEW)

    _, trace = jax.eval_shape(steps, abstract_params(config), tokens)
    assert trace.attention_entropy.shape == (1, config.num_layers, config.num_heads)
    assert trace.entropy.shape == (1,)


@pytest.mark.parametrize("model", SIZES)
def test_info_describes_a_published_size(model):
    names, values = (list(column.cells) for column in published_table(model, ALL, "float32", 16, RATES).columns)
    rows = dict(zip(map(str, names), map(str, values), strict=True))
    assert rows["parameters"].startswith(f"{model.parameters:,} ") and rows["published as"] == model.hub_id
    assert "+ lens" in rows["  16 rows"]


@pytest.mark.nightly
@pytest.mark.parametrize(("config", "name"), NARROW.items(), ids=NARROW.values())
def test_a_narrow_copy_of_a_published_size_generates(config, name):
    model = Model.from_checkpoint(RandomCheckpoint(name, config, 0))
    (row,) = model.generate([[3, 1, 4]], max_new_tokens=2, probes=ALL).rows
    assert row.metrics["attention_entropy"].shape == (2, config.num_layers, config.num_heads)
    assert 0 < row.metrics["entropy"][0] <= jnp.log(61) + 1e-5
