"""Shardings of parameters and states, on meshes without real devices."""

import dataclasses
import math
from functools import partial

import jax
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh
from jax.sharding import PartitionSpec as P

from jaxtrace import ConfigError, DecoderConfig, Probes, init_state
from jaxtrace.models.config import LayerKind
from jaxtrace.models.decoder import abstract_params, init_params, stack_layers
from jaxtrace.models.families import FAMILIES
from jaxtrace.parallel.mesh import fit_mesh
from jaxtrace.parallel.sharding import ShardingRules, param_shardings, state_shardings
from tests.engine.test_hybrid import HYBRID, NET

CONFIG = DecoderConfig(
    "llama",
    vocab_size=32,
    embed_dim=16,
    num_layers=3,
    num_heads=8,
    kv_heads=2,
    head_dim=4,
    feed_forward=24,
    context=8,
    qkv_bias=True,
)
BOTH = ("model", "copies")


@dataclasses.dataclass(frozen=True)
class Device:
    """A device that is only counted."""

    id: int
    platform: str = "cpu"
    device_kind: str = "cpu"
    process_index: int = 0


def mesh(**sizes):
    devices = np.array([Device(i) for i in range(math.prod(sizes.values()))]).reshape(tuple(sizes.values()))
    return Mesh(devices, tuple(sizes), axis_types=(AxisType.Auto,) * len(sizes))


def test_default_rules_split_heads_vocabulary_and_feed_forward():
    shardings = param_shardings(CONFIG, mesh(data=2, model=2))
    attention, feed_forward = shardings["layers"][2]["attention"], shardings["layers"][2]["feed_forward"]
    assert shardings["embedding"].spec == shardings["unembedding"].spec == P("model", None)
    assert attention["q"].spec == attention["k"].spec == attention["v"].spec == P("model", None, None)
    assert attention["o"].spec == P(None, "model", None)
    assert attention["q_bias"].spec == attention["k_bias"].spec == P("model", None)
    assert feed_forward["gate"].spec == feed_forward["up"].spec == P("model", None)
    assert feed_forward["down"].spec == P(None, "model")
    assert shardings["final_norm"]["weight"].spec == shardings["layers"][0]["attention_norm"]["weight"].spec == P(None)


WIDE_AND_NARROW = dataclasses.replace(CONFIG, kv_heads=8, pattern=(LayerKind(window=2), LayerKind(kv_heads=2)))


def test_layers_with_different_numbers_of_kv_heads():
    """Heads are split over all devices in layers with enough of them, and shared by copies in the others."""
    fitted = fit_mesh(mesh(model=8), WIDE_AND_NARROW)
    assert fitted.shape == {"model": 2, "copies": 4}
    wide, narrow, _ = (block["attention"] for block in param_shardings(WIDE_AND_NARROW, fitted)["layers"])
    assert wide["q"].spec == narrow["q"].spec == wide["k"].spec == P(BOTH, None, None)
    assert narrow["k"].spec == narrow["v"].spec == P("model", None, None)


@pytest.mark.parametrize(("kv_heads", "possible"), [((8, 4), "1, 2, 4, 8"), ((4, 2), "1, 2, 4"), ((8, 3), "1")])
def test_a_mesh_divides_every_kind_of_layers(kv_heads, possible):
    one, other = kv_heads
    config = dataclasses.replace(WIDE_AND_NARROW, num_heads=24, kv_heads=one, feed_forward=48)
    config = dataclasses.replace(config, pattern=(LayerKind(), LayerKind(kv_heads=other)))
    with pytest.raises(ConfigError, match=f"{other} or {one} key/value heads.*model may be {possible}"):
        fit_mesh(mesh(model=5), config)


def test_fewer_kv_heads_than_devices():
    """Each key/value head is on a group of devices that share its query heads."""
    shardings = param_shardings(CONFIG, mesh(data=2, model=8))
    attention, feed_forward = shardings["layers"][0]["attention"], shardings["layers"][0]["feed_forward"]
    assert attention["q"].mesh.shape == {"data": 2, "model": 2, "copies": 4}
    assert attention["q"].spec == P(BOTH, None, None)
    assert attention["o"].spec == P(None, BOTH, None)
    assert attention["k"].spec == attention["v"].spec == P("model", None, None)
    assert attention["k_bias"].spec == P("model", None)
    assert feed_forward["down"].spec == P(None, BOTH)
    assert shardings["embedding"].spec == P(BOTH, None)
    places = attention["k"].devices_indices_map((2, 4, 16))
    assert [places[Device(i)][0].start for i in range(8)] == [0, 0, 0, 0, 1, 1, 1, 1]


def test_indivisible_vocabulary():
    """An unembedding stays whole; a table for lookups only is split along its width."""
    uneven = dataclasses.replace(CONFIG, vocab_size=33)
    untied = param_shardings(uneven, mesh(model=4))
    assert (untied["embedding"].spec, untied["unembedding"].spec) == (P(None, BOTH), P(None, None))
    assert param_shardings(dataclasses.replace(uneven, tied=True), mesh(model=4))["embedding"].spec == P(None, None)


@pytest.mark.parametrize("model", [3, 5, 6, 16, 64])
def test_mesh_that_does_not_divide_the_model_is_refused(model):
    with pytest.raises(ConfigError) as error:
        param_shardings(CONFIG, mesh(data=1, model=model))
    assert str(error.value) == (
        f"mesh data=1,model={model}: {model} parts do not divide 8 heads (2 key/value heads) and 24 feed-forward "
        "units; model may be 1, 2, 4, 8"
    )


def test_key_heads_are_whole_or_shared():
    config = dataclasses.replace(CONFIG, num_heads=12, kv_heads=6, feed_forward=48)
    with pytest.raises(ConfigError, match="model may be 1, 2, 3, 6, 12"):
        fit_mesh(mesh(model=4), config)
    assert fit_mesh(mesh(model=12), config).shape == {"model": 6, "copies": 2}


def test_fitting_is_idempotent():
    once = fit_mesh(mesh(data=2, model=8), CONFIG)
    assert fit_mesh(once, CONFIG) is once
    assert fit_mesh(mesh(data=4, model=2), CONFIG).shape == {"data": 4, "model": 2}


def test_mesh_without_a_model_axis_replicates():
    shardings = param_shardings(CONFIG, mesh(data=2))
    assert all(not any(sharding.spec) for sharding in jax.tree.leaves(shardings))


def test_custom_rules():
    shardings = param_shardings(CONFIG, mesh(data=2, model=2), ShardingRules(embed=("data",), vocab=()))
    assert shardings["embedding"].spec == P(None, "data")
    assert shardings["layers"][0]["feed_forward"]["down"].spec == P("data", "model")
    assert shardings["layers"][0]["attention"]["o"].spec == P("data", "model", None)


@pytest.mark.parametrize(
    ("rules", "names"),
    [
        ({"embed": ("model",)}, ("vocab and embed of embedding", "'model'")),
        ({"head_dim": ("copies",)}, ("heads and head_dim of q", "'copies'")),
        ({"embed": ("data",), "feed_forward": ("data",)}, ("feed_forward and embed of gate", "'data'")),
    ],
    ids=str,
)
def test_two_axes_on_one_mesh_axis_are_refused(rules, names):
    with pytest.raises(ConfigError) as error:
        ShardingRules(**rules)
    assert all(name in str(error.value) for name in names)
    assert "map one to another axis" in str(error.value)


# Attributes without a default, or whose default no mesh of two divides.
NEEDED = {
    "dots1": {"n_routed_experts": 8, "n_shared_experts": 1, "num_experts_per_tok": 2},
    "flex_olmo": {"num_experts": 8},
}


@pytest.mark.parametrize("kind", FAMILIES)
def test_every_parameter_of_every_family_has_a_sharding(kind):
    config = FAMILIES[kind].decoder_config({"model_type": kind} | NEEDED.get(kind, {}), "test")
    listed = abstract_params(config)
    stacked = jax.eval_shape(partial(stack_layers, config), listed)

    def check(leaf, sharding):
        assert len(sharding.spec) == leaf.ndim
        sharding.shard_shape(leaf.shape)  # raises if a dimension is not divided

    for params, leading in ((listed, 0), (stacked, 1)):
        shardings = param_shardings(config, mesh(data=2, model=2), stacked=bool(leading))
        jax.tree.map(check, params, shardings)
        leaves = jax.tree_util.tree_leaves_with_path(params["layers"])
        for (path, leaf), sharding in zip(leaves, jax.tree.leaves(shardings["layers"]), strict=True):
            whole = path[-1].key in ("router", "shared_gate")  # every device routes its rows
            if leaf.ndim > 1 + leading and not whole:
                assert "model" in sharding.spec
    assert {sharding.spec[0] for sharding in jax.tree.leaves(shardings["layers"].repeated)} == {None}


def test_whole_experts_are_split_over_the_model_axis():
    config = FAMILIES["mixtral"].decoder_config({"model_type": "mixtral"}, "test")
    feed_forward = param_shardings(config, mesh(data=2, model=4))["layers"][0]["feed_forward"]
    assert {x.spec for x in feed_forward["experts"].values()} == {P("model", None, None)}
    assert feed_forward["router"].spec == P(None, None)
    with pytest.raises(ConfigError, match=r"do not divide 32 heads .* and 8 experts; model may be 1, 2, 4, 8"):
        param_shardings(config, mesh(data=1, model=16))


def test_states_are_split_by_rows_and_heads():
    config = DecoderConfig("llama", 32, 16, 5, 4, 2, 8, 24, 64, pattern=(LayerKind(4), LayerKind()))
    params = stack_layers(config, init_params(config, jax.random.key(0)))
    make = partial(init_state, config, params, 4, 16, Probes.all())
    state = state_shardings(jax.eval_shape(make), mesh(data=2, model=2))
    assert state.cache.repeated[0].k.spec == P(None, "data", "model", None, None)
    assert state.cache.tail[0].v.spec == P("data", "model", None, None)
    assert state.hidden.spec == P("data", None, None)
    assert state.length.spec == state.key.spec == P("data")
    wide = state_shardings(jax.eval_shape(make), fit_mesh(mesh(data=1, model=4), config))
    assert wide.cache.tail[0].k.spec == wide.cache.tail[0].v.spec == P("data", "model", None, None)
    assert wide.cache.tail[0].k.shard_shape((4, 2, 8, 16)) == (4, 1, 8, 16)


def test_states_of_delta_nets_are_split_by_rows_and_key_heads():
    make = partial(init_state, HYBRID, init_params(HYBRID, jax.random.key(0)), 4, 16, Probes.none())
    for parts, memory in ((2, (2, 1, 2, 4, 6)), (4, (2, 1, 2, 4, 6)), (1, (2, 2, 2, 4, 6))):
        fitted = fit_mesh(mesh(data=2, model=parts), HYBRID)
        state, shapes = state_shardings(jax.eval_shape(make), fitted).cache[0], jax.eval_shape(make).cache[0]
        assert state.memory.shard_shape(shapes.memory.shape) == memory
        assert state.conv.shard_shape(shapes.conv.shape) == (2, 2, memory[1], 20)
    three = dataclasses.replace(HYBRID.pattern[0], delta_net=dataclasses.replace(NET, key_heads=3, value_heads=3))
    with pytest.raises(ConfigError, match=r"\(2 key/value heads, 3 key heads of delta nets\).*; model may be 1$"):
        fit_mesh(mesh(data=1, model=2), dataclasses.replace(HYBRID, pattern=(three, LayerKind())))
