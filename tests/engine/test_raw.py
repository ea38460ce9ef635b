"""Layer strides and raw material against a trace of all layers and a float64 model."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtrace import ConfigError, Greedy, Model, Probes, decode_step, init_params, init_state
from jaxtrace.engine.loop import decode_chunk
from jaxtrace.engine.metric_buffer import concatenate_steps
from jaxtrace.engine.step import score_step, stop_rules
from jaxtrace.models.config import LayerKind, PositionScaling
from jaxtrace.planning.cost import trace_bytes
from jaxtrace.schema import QUANTITIES
from jaxtrace.traces import open_trace
from tests import oracle
from tests.engine import float64_llama
from tests.engine.conftest import CONFIG
from tests.engine.reference import assert_same, at
from tests.engine.test_probes import score
from tests.traces.rows import assert_same_row

PROBES = Probes(
    layer_stride=2,
    residuals=(3, 0),
    top_tokens=5,
    top_k_mass=7,
    attention_rows=((1, 0), (3, 2), (1, 3)),
    lens_renyi=True,
)
CHOSEN = (1, 3)

PROMPTS = (1, 0)  # prompts to generate from: one of one token, and one of five


@pytest.fixture(scope="module")
def raw_generated(model, prompts):
    """Generate one row at a time, with metrics of the prompt positions."""
    probes = dataclasses.replace(PROBES, prompt_positions=True)
    return model.generate([prompts[i] for i in PROMPTS], max_new_tokens=20, probes=probes, batch_size=1)


@pytest.fixture(scope="module")
def raw_scored(model, prompts):
    return model.score(prompts, probes=PROBES)


# The lens of layer 2 and the last one at every third step; other metrics of the last layer alone.
LENS = Probes.of(
    "output", "lens", "hidden", layer_stride=3, lens_layers=(2,), lens_every=3, lens_renyi=True, prompt_positions=True
)


@pytest.fixture(scope="module")
def sparse(model, prompts):
    return model.generate([prompts[i] for i in PROMPTS], max_new_tokens=20, probes=LENS)


def assert_raw(row, first, run):
    """Assert the raw material of a row's steps, from position `first`, against a float64 run of the whole text."""
    end = first + row.length
    metrics = row.metrics
    hidden = np.moveaxis(run.hidden[first:end], 1, 0)
    np.testing.assert_allclose(metrics["residuals"][:, 0], hidden[3], atol=1e-4 * np.abs(hidden).max())
    np.testing.assert_allclose(metrics["residuals"][:, 1], hidden[0], atol=1e-4 * np.abs(hidden).max())
    p = np.log(oracle.softmax(run.logits[first:end]))
    mass = oracle.top_k_mass(run.logits[first:end], PROBES.top_k_mass)
    np.testing.assert_allclose(metrics["top_k_mass"], mass, rtol=0, atol=1e-5)
    np.testing.assert_allclose(metrics["top_logprobs"], -np.sort(-p, axis=-1)[:, :5], atol=1e-4)
    np.testing.assert_allclose(np.take_along_axis(p, metrics["top_ids"], axis=-1), metrics["top_logprobs"], atol=1e-4)
    lens_logits = run.lens_logits[first:end, [layer - 1 for layer in CHOSEN]]
    renyi = np.stack([oracle.renyi(lens_logits, alpha) for alpha in PROBES.alphas], axis=-1)
    np.testing.assert_allclose(metrics["lens_renyi"], renyi, rtol=0, atol=1e-5)
    np.testing.assert_array_equal(metrics["lens_renyi"][:, -1], metrics["renyi"])
    weights = metrics["attention_rows"]
    assert weights.shape == (row.length, 3, end)
    for i, (layer, head) in enumerate(PROBES.attention_rows):
        want = run.attention[first:end, layer - 1, head, :end]
        beyond = np.arange(end) > np.arange(first, end)[:, None]
        np.testing.assert_array_equal(np.isnan(weights[:, i]), beyond)
        np.testing.assert_allclose(np.nan_to_num(weights[:, i]), want, atol=1e-5)


def at_chosen(metrics):
    """Return the metrics of all layers, at the layers that the stride selects."""
    selected = {}
    for name, values in metrics.items():
        metric = QUANTITIES[name]
        if "layer" in metric.dims:
            layers = [0, *CHOSEN] if metric.first_layer == 0 else [layer - 1 for layer in CHOSEN]
            values = values[:, layers]
        selected[name] = values
    return selected


def scored_at_once(model, tokens, probes):
    """Return the metrics of a text from one step that compiles fast."""
    tokens = jnp.array([tokens])
    state = init_state(model.config, model.params, 1, tokens.shape[1], probes)
    ahead = jnp.append(tokens[:, 1:], -1)[None]
    count = jnp.array([tokens.shape[1]])
    _, trace = score(model.params, state, tokens, count, ahead, config=model.config, probes=probes)
    return {name: np.asarray(x[0]) for name, x in trace.arrays.items()}


def without_raw(row):
    return {name: row.metrics[name] for name in Probes(layer_stride=2).metrics if not QUANTITIES[name].only}


def test_generated_raw_material_equals_the_oracle(model, raw_generated, generated, scored):
    """Check the prompt positions, each with the prompt's next token, and then the drawn steps."""
    for row, i in zip(raw_generated.rows, PROMPTS, strict=True):
        before = len(row.prompt_tokens) - 1
        assert row.prompt_steps == before
        assert set(row.metrics) == set(PROBES.metrics) - {"learned_sink_mass"}
        assert_same(at(without_raw(row), slice(before, None)), at_chosen(generated.rows[i].metrics))
        if before:
            prompt_metrics = at(at_chosen(scored.rows[i].metrics), slice(before))
            assert_same(at(without_raw(row), slice(before)), prompt_metrics)
        text = [*row.prompt_tokens, *row.metrics["token"][before:-1]]
        assert_raw(row, 0, float64_llama.run(model.config, model.params, text))


def test_scored_raw_material_equals_the_oracle(model, raw_scored, scored):
    for row, whole in zip(raw_scored.rows, scored.rows, strict=True):
        assert_same(without_raw(row), at_chosen(whole.metrics))
        assert_raw(row, 0, float64_llama.run(model.config, model.params, row.prompt_tokens))


@pytest.mark.parametrize(("tokens", "mass"), [(0, 4), (6, 4), (4, 6), (4, 37)])
def test_mass_of_the_likeliest_tokens_needs_no_search_of_its_own(model, prompts, tokens, mass):
    probes = Probes.of("none", top_tokens=tokens, top_k_mass=mass)
    got = scored_at_once(model, prompts[0], probes)
    assert got.get("top_ids", np.empty((1, 0))).shape[-1] == tokens
    logits = float64_llama.run(model.config, model.params, prompts[0]).logits
    np.testing.assert_allclose(got["top_k_mass"], oracle.top_k_mass(logits, mass), rtol=0, atol=1e-5)
    step = functools.partial(decode_step, config=model.config, probes=probes)
    program = str(jax.make_jaxpr(step)(model.params, init_state(model.config, model.params, 1, 8, probes)))
    assert program.count("top_k[") == 1


def test_stacked_layers_give_the_same_raw_material(stacked, prompts, raw_scored):
    got, want = scored_at_once(stacked, prompts[0], PROBES), raw_scored.rows[0].metrics
    for name in ("residuals", "top_logprobs", "lens_renyi", "attention_rows"):
        np.testing.assert_allclose(got[name], want[name], atol=2e-4, err_msg=name)
    assert_same({name: got[name] for name in without_raw(raw_scored.rows[0])}, without_raw(raw_scored.rows[0]))


def test_parts_over_caches_of_unequal_sizes_are_concatenated():
    parts = [np.ones((2, 1, 4), np.float32), np.ones((1, 1, 8), np.float32)]
    whole = concatenate_steps("attention_rows", parts)
    np.testing.assert_array_equal(np.isnan(whole).sum(axis=(1, 2)), [4, 4, 0])
    assert concatenate_steps("entropy", [np.ones(2), np.ones(3)]).shape == (5,)


def test_attention_rows_with_windows_and_soft_caps_have_the_recorded_entropies():
    scaling = PositionScaling(0.5, 4)
    kinds = (LayerKind(window=4, position_scaling=scaling), LayerKind(rope=None, chunk=5, position_scaling=scaling))
    norms = {"norm_placement": "after", "qk_norm": "width"}
    config = dataclasses.replace(CONFIG, pattern=kinds, score_soft_cap=2.0, **norms)
    params = jax.tree.map(lambda x: x * (1 if x.ndim == 1 else 8), init_params(config, jax.random.key(1)))
    pairs = tuple((layer, head) for layer in (1, 2, 3) for head in range(4))
    probes = Probes.of("attention", attention_rows=pairs)
    got = scored_at_once(Model("tiny", config, params), list(range(12)), probes)
    weights = np.nan_to_num(got["attention_rows"].astype(np.float64)).reshape(12, 3, 4, 12)
    entropy = -(weights * np.log(np.where(weights > 0, weights, 1))).sum(-1)
    np.testing.assert_allclose(entropy, got["attention_entropy"], atol=1e-5)
    assert (weights[:, 0] > 0).sum(-1).max() == 4
    assert [first for first in (weights[:, 1] > 0).argmax(-1)[:, 0]] == [0] * 5 + [5] * 5 + [10] * 2


def test_raw_material_is_stored_and_read_back(raw_generated, raw_scored, tmp_path):
    for trace in (raw_generated, raw_scored):
        place = tmp_path / trace.info["mode"]
        trace.save(place)
        back = open_trace(place)
        for got, want in zip(back.rows, trace.rows, strict=True):
            assert_same_row(got, want)
        assert back.info == trace.info | {"complete": True}
        assert back.to_xarray().identical(trace.to_xarray())
        tokens = back.tokens.to_table(
            columns=["step", "position", "residual_3", "top_ids", "attention_3_2"]
        ).to_pandas()
        assert (tokens.attention_3_2.map(len) == tokens.position + 1).all()
        assert (tokens.residual_3.map(len) == CONFIG.embed_dim).all() and (tokens.top_ids.map(len) == 5).all()
        assert (tokens.step.min() < 0) == (trace.info["mode"] == "generate") and tokens.position.min() == 0
        layers = back.layers.to_table(columns=["layer", "hdi"]).to_pandas()
        assert sorted(set(layers.layer)) == [0, *CHOSEN]


def test_the_lens_is_taken_at_its_own_layers_and_steps(sparse, generated, scored):
    for row, i in zip(sparse.rows, PROMPTS, strict=True):
        prompt, drawn = scored.rows[i].metrics, generated.rows[i].metrics
        taken = (np.arange(row.length) - row.prompt_steps) % 3 == 0
        assert taken.sum() == (row.prompt_steps + 3) // 3 + 6
        for name in ("lens_entropy", "lens_varentropy", "lens_kl", "lens_top1", "lens_top1_prob"):
            found, want = row.metrics[name], np.concatenate([prompt[name][: row.prompt_steps], drawn[name]])[:, 1:]
            np.testing.assert_allclose(found[taken], want[taken], rtol=1e-4, atol=1e-4)
            assert np.isnan(found[~taken]).all() if found.dtype.kind == "f" else (found[~taken] == -1).all()
        renyi = row.metrics["lens_renyi"]
        np.testing.assert_allclose(renyi[taken, 1], row.metrics["renyi"][taken], rtol=1e-5, atol=1e-5)
        assert np.isfinite(renyi[taken]).all() and np.isnan(renyi[~taken]).all()
        assert (
            np.isnan(row.metrics["hidden_norm"][:, 1]).all()
            and np.isnan(row.metrics["hidden_cosine_layer"][:, 0]).all()
        )
        kept = {name: row.metrics[name] for name in ("token", "entropy", "hidden_norm", "hidden_cosine_layer")}
        want = {name: drawn[name] for name in kept}
        want |= {
            "hidden_norm": drawn["hidden_norm"][:, [0, 3]],
            "hidden_cosine_layer": drawn["hidden_cosine_layer"][:, 2:],
        }
        kept |= {"hidden_norm": row.metrics["hidden_norm"][:, [0, 2]]}
        kept |= {"hidden_cosine_layer": row.metrics["hidden_cosine_layer"][:, 1:]}
        assert_same(at(kept, slice(row.prompt_steps, None)), want)


def test_a_sparse_lens_is_stored_and_read_back(sparse, tmp_path):
    sparse.save(tmp_path)
    back = open_trace(tmp_path)
    for got, want in zip(back.rows, sparse.rows, strict=True):
        assert_same_row(got, want)
    assert back.to_xarray().identical(sparse.to_xarray())
    assert (
        back.traced_layers == (2, 3) and back.layers_of("lens_kl") == (2, 3) and back.layers_of("hidden_norm") == (3,)
    )
    layers = back.layers.to_table(columns=["step", "layer", "lens_kl", "lens_top1"]).to_pandas()
    present = (layers.layer > 0) & (layers.step % 3 == 0)
    assert (layers.lens_kl.notna() == present).all() and (layers.lens_top1.notna() == present).all()


def test_other_steps_unembed_the_output_alone(model):
    def products(probes, count):
        """Return the number of matrix products of a step outside branches, and of each branch of each conditional."""
        state = init_state(model.config, model.params, 2, 64, probes)
        tokens = jnp.zeros((2, count), jnp.int32)
        if count > 1:
            jaxpr = jax.make_jaxpr(functools.partial(score_step, config=model.config, probes=probes))(
                model.params, state, tokens, jnp.full(2, count), tokens
            )
        else:
            step = functools.partial(decode_step, config=model.config, probes=probes)
            jaxpr = jax.make_jaxpr(step)(model.params, state)
        branches = [each.params["branches"] for each in equations(jaxpr.jaxpr) if each.primitive.name == "cond"]
        return count_products(jaxpr.jaxpr), [[count_products(each.jaxpr) for each in of_one] for of_one in branches]

    for count in (1, 4):
        outside, branches = products(Probes(lens_every=2), count)
        assert outside == products(Probes().without_lens(), count)[0]
        assert sorted(branches[-1])[0] == 0 < sorted(branches[-1])[1]


def equations(jaxpr):
    """Yield the equations of a program, those of inner ones but for branches included."""
    for equation in jaxpr.eqns:
        yield equation
        for inner in jax.tree.leaves(equation.params, is_leaf=lambda x: hasattr(x, "eqns") or hasattr(x, "jaxpr")):
            if equation.primitive.name != "cond" and (program := getattr(inner, "jaxpr", inner)) is not None:
                yield from equations(program) if hasattr(program, "eqns") else ()


def count_products(jaxpr):
    return sum(equation.primitive.name == "dot_general" for equation in equations(jaxpr))


def test_rows_are_refilled_before_a_step_with_a_lens(model):
    probes = Probes.of("lens", lens_every=4)
    state = init_state(model.config, model.params, 2, 64, probes, first=jnp.zeros(2, jnp.int32))
    state = dataclasses.replace(state, active=jnp.array([True, False]))
    options = {"config": model.config, "probes": probes, "sampler": Greedy(), "steps": 3}
    steps, patience = [], jnp.int32(1)  # used up by the finished row at the first step
    for _ in range(2):
        state, _, valid, _, patience = decode_chunk(model.params, state, stop_rules(), patience, **options)
        steps.append((int(valid[:, 0].sum()), int(patience) > 0))
    assert steps == [(3, True), (1, False)]


def test_coordinates_name_the_selected_layers(raw_generated, generated):
    ds, whole = raw_generated.to_xarray(), generated.to_xarray()
    np.testing.assert_array_equal(ds["layer"], [0, *CHOSEN])
    np.testing.assert_array_equal(ds["step"], range(-4, 20))
    for name in ("hidden_norm", "lens_entropy"):
        want = whole[name].sel(layer=[0, *CHOSEN], prompt=list(PROMPTS))
        np.testing.assert_allclose(ds[name].sel(step=slice(0, None)), want, rtol=1e-4, atol=1e-4)
        assert np.isnan(ds[name].sel(prompt=0, step=slice(None, -1))).all()
    assert ds["residuals"].dims == ("prompt", "step", "residual", "embed")
    np.testing.assert_array_equal(ds["residual"], [3, 0])
    assert list(zip(ds["row_layer"].values, ds["row_head"].values, strict=True)) == list(PROBES.attention_rows)
    np.testing.assert_allclose(ds["attention_rows"].sum("key").sel(step=0), 1, rtol=1e-5)
    assert ds["attention_rows"].sizes["key"] == 24  # the positions that a prompt of 5 and 20 tokens feeds


def test_trace_bytes_count_the_raw_material(raw_scored):
    row = raw_scored.rows[2]
    by_group = trace_bytes(CONFIG, PROBES, positions=row.metrics["attention_rows"].shape[-1])
    assert sum(x.nbytes for x in row.metrics.values()) == row.length * sum(by_group.values())
    half = trace_bytes(CONFIG, PROBES, precision="float16", positions=40)
    floats = [
        sum(x.nbytes for x in row.metrics.values() if (x.dtype.kind == "f") == wanted) for wanted in (True, False)
    ]
    assert floats[0] / 2 + floats[1] == row.length * sum(half.values())


def test_lens_of_fewer_layers_unembeds_fewer_rows(model):
    def flops(stride):
        probes = Probes.of("lens", layer_stride=stride)
        state = init_state(model.config, model.params, 2, 64, probes)
        step = jax.jit(lambda params, state: decode_step(params, state, config=model.config, probes=probes)[1])
        return step.lower(model.params, state).compile().cost_analysis()["flops"]

    unembedded = 2 * CONFIG.vocab_size * CONFIG.embed_dim
    assert flops(1) - flops(3) >= 2 * 2 * unembedded  # two rows, two layers fewer


def test_probes_beyond_the_model_are_refused(model):
    for probes, message in [
        (Probes(residuals=(4,)), r"residuals: no layer 4; there are 0 \(the embedding\) to 3"),
        (Probes(attention_rows=((4, 1),)), "no head 1 of layer 4; there are layers 1 to 3 and heads 0 to 3"),
        (Probes(attention_rows=((3, 4),)), "no head 4 of layer 3"),
        (Probes(lens_layers=(4,)), "lens_layers: no layer 4; there are layers 1 to 3"),
        (Probes(top_tokens=38), "top_tokens is 38; the vocabulary has 37"),
        (Probes(top_k_mass=38), "top_k_mass is 38; the vocabulary has 37"),
    ]:
        with pytest.raises(ConfigError, match=message):
            model.generate([[1]], probes=probes)
    for options in (
        {"layer_stride": 0},
        {"lens_stride": 0},
        {"lens_every": 0},
        {"lens_layers": (0,)},
        {"lens_layers": (2, 2)},
        {"lens_layers": (2,), "lens_stride": 2},
        {"top_tokens": -1},
        {"top_k_mass": -1},
        {"residuals": (1, 1)},
        {"attention_rows": ((1, 1),) * 2},
    ):
        with pytest.raises(ConfigError, match=next(iter(options))):
            Probes(**options)
    for options in ({"lens_renyi": True}, {"lens_stride": 2}, {"lens_layers": (1,)}, {"lens_every": 2}):
        with pytest.raises(ConfigError, match=f"{next(iter(options))} needs the group lens; record it too"):
            Probes.of("output", **options)


def test_strides_always_select_the_last_layer():
    for layers in range(1, 9):
        for stride in range(1, 10):
            chosen = Probes(layer_stride=stride).layers(dataclasses.replace(CONFIG, num_layers=layers))
            assert chosen[-1] == layers and set(jnp.diff(jnp.array(chosen)).tolist()) <= {stride}
            assert min(chosen) <= stride


def test_layers_of_the_lens_are_chosen_apart():
    for options, lens, recorded in [
        ({}, (1, 2, 3), (1, 2, 3)),
        ({"layer_stride": 2}, (1, 3), (1, 3)),
        ({"layer_stride": 3, "lens_stride": 1}, (1, 2, 3), (1, 2, 3)),
        ({"lens_stride": 2}, (1, 3), (1, 2, 3)),
        ({"layer_stride": 2, "lens_layers": (2,)}, (2, 3), (1, 2, 3)),
    ]:
        probes = Probes(**options)
        assert (probes.layers_of_lens(CONFIG), probes.recorded_layers(CONFIG)) == (lens, recorded)
    alone = Probes.of("output", "lens", lens_stride=2)
    assert alone.recorded_layers(CONFIG) == (1, 3) and alone.stream(CONFIG) == (1, 3)
