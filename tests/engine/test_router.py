"""Router metrics and chosen experts: their values, where they exist, and where they are kept."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxtrace as jt
from jaxtrace import ConfigError, Interventions, Model, Probes, decode_step, init_params, init_state
from jaxtrace.engine.measure import forward_flags
from jaxtrace.figures.columns import token_columns
from jaxtrace.figures.page import CAPTIONS
from jaxtrace.figures.plots import FIGURES, figures
from jaxtrace.models.cache import empty_cache
from jaxtrace.models.config import Experts, LayerKind
from jaxtrace.models.decoder import is_stacked, stack_layers
from jaxtrace.models.forward import forward
from jaxtrace.models.router import RouterOutputs, RouterTrace
from jaxtrace.planning.cost import trace_bytes
from tests import oracle
from tests.engine import float64_llama
from tests.engine.conftest import CONFIG as DENSE
from tests.engine.reference import assert_metrics, metrics
from tests.traces.rows import assert_same_row

CONFIG = dataclasses.replace(
    DENSE, pattern=(DENSE.pattern[0], dataclasses.replace(DENSE.pattern[0], dense=True)), experts=Experts(6, 2, 16)
)
PROBES = Probes(experts=True)
ROUTER = ("router_entropy", "router_top_mass")
TEXT = [5, 1, 30, 17, 8, 2, 21]


@pytest.fixture(scope="module")
def mixture():
    """Return a decoder whose middle layer is dense, and whose routers prefer some experts."""
    params = jax.tree.map(lambda x: x * (1 if x.ndim == 1 else 8), init_params(CONFIG, jax.random.key(0)))
    return Model("mixture", CONFIG, params)


@pytest.fixture(scope="module")
def scored(mixture):
    return mixture.score([TEXT, TEXT[:3]], probes=PROBES)


def test_metrics_of_a_model_with_experts_equal_the_oracle(mixture, scored):
    for row, text in zip(scored.rows, (TEXT, TEXT[:3]), strict=True):
        run = float64_llama.run(mixture.config, mixture.params, text)
        got = dict(row.metrics)
        np.testing.assert_array_equal(got.pop("experts"), run.experts)
        assert_metrics(got, metrics(run, np.array([*text[1:], -1])), run.lens_logits)
        assert np.isnan(got["router_entropy"]).any(0).tolist() == [False, True, False]


def assert_same_routers(got, row, layers):
    """Assert that a RouterTrace of some layers (from 1) agrees with a row's metrics."""
    indices = [layer - 1 for layer in layers]
    for x, name in ((got.entropy, "router_entropy"), (got.top_mass, "router_top_mass"), (got.experts, "experts")):
        np.testing.assert_allclose(np.moveaxis(x[:, 0], 0, 1), row.metrics[name][:, indices], atol=1e-5)


@functools.partial(jax.jit, static_argnames="layers", compiler_options={"xla_backend_optimization_level": 0})
def routers(params, tokens, layers=None, interventions=None):
    """Return the RouterTrace of a text."""
    cache = empty_cache(CONFIG, 1, len(tokens), stacked=is_stacked(params))
    options = {"router": True, "experts": True, "layers": layers, "interventions": interventions}
    return forward(CONFIG, params, tokens[None], cache, jnp.zeros(1, jnp.int32), **options).router


def test_stacked_layers_have_the_same_routers(mixture, scored):
    got = routers(stack_layers(CONFIG, mixture.params), jnp.array(TEXT), layers=(1, 2))
    assert_same_routers(got, scored.rows[0], (1, 2))


@pytest.mark.nightly
@pytest.mark.parametrize("sampler", [None, jt.Entropix()], ids=["greedy", "of attention in all layers"])
def test_drawn_steps_have_the_same_routers(mixture, scored, sampler):
    probes = dataclasses.replace(PROBES, prompt_positions=True, layer_stride=2)
    (row,) = mixture.generate([TEXT[:6]], max_new_tokens=1, probes=probes, sampler=sampler).rows
    for name in (*ROUTER, "experts"):
        np.testing.assert_allclose(row.metrics[name], scored.rows[0].metrics[name][:6, [0, 2]], atol=1e-5)


@pytest.mark.parametrize("scoring", ["softmax", "sigmoid"])
@pytest.mark.parametrize("shape", ["normal", "offset", "peaked", "far below 0"])
def test_router_metrics_hold_float32_against_float64(scoring, shape, rng):
    logits = rng.normal(0, 2, (3, 40, 64))
    logits[..., :2] += {"peaked": 45}.get(shape, 0)
    logits = np.float32(logits + {"offset": 300, "far below 0": -300}.get(shape, 0))
    chosen = np.argsort(-logits, axis=-1)[..., :4]
    scores = jnp.asarray(logits) if scoring == "softmax" else jax.nn.log_sigmoid(logits)
    got = RouterTrace.of(scores, jnp.asarray(chosen), RouterOutputs(metrics=True, experts=False))
    want = oracle.router(oracle.router_distribution(logits, scoring), chosen)
    np.testing.assert_allclose(got.entropy, want["router_entropy"], rtol=0, atol=1e-5)
    np.testing.assert_allclose(got.top_mass, want["router_top_mass"], rtol=0, atol=1e-5)
    assert got.experts is None


def test_a_model_without_experts_has_no_router_metrics(model):
    for probes in (Probes.all(), Probes.of("all"), Probes(lens=False), Probes.of("output")):
        flags = forward_flags(DENSE, probes)
        assert not flags["router"] and not flags["experts"]
        assert "router" not in model.info("score", jt.engine.settings.Settings(probes))["probes"]
        assert "router" not in trace_bytes(DENSE, probes)


@pytest.mark.parametrize(
    ("probes", "message"),
    [
        (Probes.of("router"), "probes: router needs a model with experts, and this one is dense; drop router"),
        (Probes.of("output", experts=True), "experts: needs a model with experts, and this one is dense; drop experts"),
    ],
)
def test_a_model_without_experts_refuses_a_request_for_routers(model, probes, message):
    state = init_state(DENSE, model.params, 1, 16, probes)
    calls = [
        lambda: model.generate([[1]], probes=probes),
        lambda: model.score([[1]], probes=probes),
        lambda: decode_step(model.params, state, config=DENSE, probes=probes),
        lambda: trace_bytes(DENSE, probes),
        lambda: jt.plan("demo", "cpu-1", probes=probes),
    ]
    for call in calls:
        with pytest.raises(ConfigError) as error:
            call()
        assert str(error.value) == message


def test_a_decoder_whose_layers_are_all_dense_has_no_router():
    assert dataclasses.replace(CONFIG, pattern=(LayerKind(dense=True),)).chosen_experts == 0


def test_routers_are_computed_on_request_only(mixture):
    def text(probes):
        step = functools.partial(decode_step, config=CONFIG, probes=probes)
        state = jax.eval_shape(lambda: init_state(CONFIG, mixture.params, 2, 16, probes))
        return jax.jit(step).lower(mixture.params, state).as_text(debug_info=True)

    assert "router_metrics" in text(Probes.of("router"))
    assert "router_metrics" not in text(Probes.of("output", "attention", experts=True))


def test_an_ablated_layer_says_which_experts_it_would_choose(mixture, scored):
    ablated = routers(mixture.params, jnp.array(TEXT), interventions=Interventions.of(CONFIG, layers=[1]))
    assert_same_routers(jax.tree.map(lambda x: x[:1], ablated), scored.rows[0], (1,))
    later = np.abs(ablated.entropy[2, 0] - scored.rows[0].metrics["router_entropy"][:, 2])
    assert (later > 1e-4).all()


def test_router_metrics_and_experts_are_stored_and_read_back(scored, tmp_path):
    scored.save(tmp_path)
    back = jt.open(tmp_path)
    for got, want in zip(back.rows, scored.rows, strict=True):
        assert_same_row(got, want)
    assert back.info["probes"][-1] == "router" and back.info["experts"] == 2
    layers = back.layers.to_table(columns=["layer", *ROUTER]).to_pandas()
    for name in ROUTER:
        assert set(layers.layer[layers[name].notna()]) == {1, 3}
    first = back.tokens.to_table(columns=["experts"])["experts"][0].as_py()
    assert first[2:4] == [None, None] and first[:2] == scored.rows[0].metrics["experts"][0, 0].tolist()
    ds = back.to_xarray()
    assert ds["experts"].dims == ("prompt", "step", "layer", "slot")
    assert (ds["experts"].sel(layer=[0, 2]) == -1).all() and (ds["experts"].sel(layer=3, prompt=0) >= 0).all()


def test_trace_bytes_count_routers_and_experts(scored):
    row = scored.rows[0]
    by_group = trace_bytes(CONFIG, PROBES)
    assert sum(x.nbytes for x in row.metrics.values()) == row.length * sum(by_group.values())
    assert (by_group["router"], by_group["experts"]) == (2 * 3 * 4, 3 * 2 * 4)


def test_token_columns_are_means_over_the_layers_with_a_router(scored):
    row = scored.rows[0]
    columns = token_columns(row, (1, 2, 3))
    for name in ROUTER:
        np.testing.assert_allclose(columns[name], row.metrics[name][:, [0, 2]].mean(1), rtol=1e-6)


def test_the_figure_of_routers_skips_dense_layers(scored):
    drawn = figures(scored.to_xarray()[[*ROUTER]])
    assert [*drawn] == ["router_profile"] and CAPTIONS.keys() == FIGURES.keys()
    panels = drawn["router_profile"].axes
    assert [axes.get_title(loc="left") for axes in panels] == ["Router entropy", "Mass of the chosen experts"]
    line = panels[0].lines[0]
    assert line.get_xdata().tolist() == [1, 2, 3] and np.isnan(line.get_ydata()).tolist() == [False, True, False]
