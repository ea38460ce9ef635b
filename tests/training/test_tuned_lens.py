"""A tuned lens: that of zeros is the logit lens, training brings it to the last layer, files are read strictly."""

import dataclasses
import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from jaxtrace import CheckpointError, ConfigError, Model, Probes
from jaxtrace.checkpoints.random import RandomCheckpoint
from jaxtrace.engine.translators import Translators
from jaxtrace.engine.tuned_lens import CARD, TENSORS, LensCard, write_lens
from jaxtrace.training import tuned_lens as training
from jaxtrace.training.tuned_lens import STATE, Recipe, cut, held_out_kl, train, tune
from tests import oracle
from tests.engine.conftest import CONFIG

LENS = ("lens_entropy", "lens_varentropy", "lens_kl", "lens_top1", "lens_top1_prob")
RECIPE = Recipe(steps=30, batch=4, length=16, learning_rate=3e-3)


def card_of(of, **changes):
    fields = {
        "model": of.name,
        "checkpoint": of.fingerprint(),
        "layers": of.config.layers,
        "embed": of.config.embed,
        "text": "none",
        "tokens": 0,
        "recipe": {},
        "held_out": 0,
        "kl_logit": (),
        "kl_tuned": (),
    }
    return LensCard(**fields | changes)


@pytest.fixture(scope="module")
def drawn():
    """Translators of random numbers."""
    rng = np.random.default_rng(0)
    shapes = {name: x.shape for name, x in vars(Translators.zeros(CONFIG)).items()}
    return Translators(**{name: np.float32(rng.normal(0, 0.1, shape)) for name, shape in shapes.items()})


def traced(model, prompts, **probes):
    return model.generate(prompts, max_new_tokens=2, probes=Probes.of("output", "lens", **probes))


def test_zeros_are_the_logit_lens(model, prompts, tmp_path):
    write_lens(tmp_path, Translators.zeros(CONFIG), card_of(model))
    logit, tuned = traced(model, prompts), traced(model.with_lens(tmp_path), prompts)
    for row, other in zip(logit.rows, tuned.rows, strict=True):
        for name in LENS:
            np.testing.assert_array_equal(row.metrics[name], other.metrics[name], err_msg=name)
    assert logit.info["lens"] == "logit" and len(tuned.info["lens"]) == 64


def test_metrics_are_of_translated_streams(model, prompts, drawn, tmp_path):
    write_lens(tmp_path, drawn, card_of(model))
    every = tuple(range(1, CONFIG.layers + 1))
    trace = traced(model.with_lens(tmp_path), prompts, residuals=every)
    scored = model.with_lens(tmp_path).score(prompts[:1], probes=Probes.of("lens", layer_stride=2))
    table = np.asarray(model.params["unembedding"], np.float64)
    norm = np.asarray(model.params["final_norm"]["weight"], np.float64)
    for row in trace.rows:
        x = row.metrics["residuals"].astype(np.float64)
        for layer in every[:-1]:
            x[:, layer - 1] += x[:, layer - 1] @ drawn.weight[layer].T.astype(np.float64) + drawn.bias[layer]
        x *= norm / np.sqrt(np.mean(x**2, -1, keepdims=True) + CONFIG.norm_eps)
        wanted = oracle.entropy(x @ table.T)
        np.testing.assert_allclose(row.metrics["lens_entropy"], wanted, atol=2e-5)
        np.testing.assert_array_equal(row.metrics["lens_entropy"][:, -1], row.metrics["entropy"])
    last = scored.rows[0].metrics["lens_entropy"][-1]
    np.testing.assert_allclose(last, trace.rows[0].metrics["lens_entropy"][0, ::2], atol=1e-5)  # layers 1 and 3


@pytest.fixture(scope="module")
def texts():
    """Texts in which every token says what the next one is."""
    rng = np.random.default_rng(2)
    starts = rng.integers(0, CONFIG.vocab, 60)
    return [np.int32((start + 3 * np.arange(16)) % CONFIG.vocab) for start in starts]


@pytest.fixture(scope="module")
def tuned(model, texts, tmp_path_factory):
    """A lens that was trained, its directory, card and KLs on what was held out."""
    directory = tmp_path_factory.mktemp("tuned") / "lens"
    losses = []
    card, kl = tune(model, texts, "counts", RECIPE, directory, lambda step, loss: losses.append((step, loss)))
    return directory, card, kl, losses


def test_training_brings_early_layers_to_the_last(model, texts, tuned):
    directory, card, kl, losses = tuned
    assert [step for step, _ in losses] == [*range(1, 31)]
    assert kl["logit"].shape == kl["tuned"].shape == (6, CONFIG.layers) and card.held_out == 6
    np.testing.assert_allclose(card.kl_tuned, kl["tuned"].mean(0))
    assert np.all(kl["tuned"].mean(0) < 0.8 * kl["logit"].mean(0)), (kl["logit"].mean(0), kl["tuned"].mean(0))
    again = model.with_lens(directory)
    found = again.score([texts[0].tolist()], probes=Probes.of("lens")).rows[0].metrics["lens_kl"]
    wanted = held_out_kl(CONFIG, model.params, again.lens.translators, texts[0][None])[0]
    np.testing.assert_allclose(found.mean(0)[:-1], wanted[1:], rtol=1e-4, atol=1e-5)
    assert not (directory / STATE).exists()


def test_a_training_that_was_cut_off_goes_on(model, texts, tuned, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "SAVE_EVERY", 10)

    def stop(step, loss):
        if step == 15:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tune(model, texts, "counts", RECIPE, tmp_path / "lens", stop)
    steps = []
    tune(model, texts, "counts", RECIPE, tmp_path / "lens", lambda step, _: steps.append(step))
    assert steps == [*range(11, 31)]
    whole, parts = load_file(tuned[0] / TENSORS), load_file(tmp_path / "lens" / TENSORS)
    for name, x in whole.items():
        np.testing.assert_array_equal(parts[name], x)


def test_a_state_of_other_settings_is_refused(model, texts, tmp_path):
    sequences = cut(texts, RECIPE)
    save_file({"0": np.zeros(1)}, tmp_path / STATE, metadata={"step": "1", "recipe": "another"})
    with pytest.raises(ConfigError, match="left by a training of another model, text or settings"):
        train(model, sequences, RECIPE, tmp_path / STATE)


def test_a_training_of_another_model_of_the_config_is_refused(texts, tmp_path):
    first, other = (
        Model.of(RandomCheckpoint(f"tiny {seed}", CONFIG, seed), dtype=np.float32, mesh=None) for seed in (0, 1)
    )
    recipe, state = dataclasses.replace(RECIPE, steps=1), tmp_path / STATE
    train(first, cut(texts, recipe), recipe, state)
    with pytest.raises(ConfigError, match="left by a training of another model"):
        train(other, cut(texts, recipe), recipe, state)


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"steps": 0}, "steps=0 is out of range"), ({"length": 1000}, "960 tokens of text make 0 sequences of 1000")],
)
def test_recipes_that_cannot_be(texts, changes, message):
    with pytest.raises(ConfigError, match=message):
        cut(texts, dataclasses.replace(RECIPE, **changes))


def broken(directory, what):
    """Damages a lens."""
    if what == "no card":
        (directory / CARD).unlink()
    elif what == "more in the card":
        card = json.loads((directory / CARD).read_text())
        (directory / CARD).write_text(json.dumps(card | {"more": 1}))
    elif what == "no json":
        (directory / CARD).write_text("{")
    elif what == "no tensors":
        (directory / TENSORS).write_bytes(b"nothing")
    elif what == "another width":
        save_file(
            {"weight": np.zeros((3, 8, 8), np.float32), "bias": np.zeros((3, 8), np.float32)}, directory / TENSORS
        )
    elif what == "another name":
        save_file({"weight": np.zeros((3, 32, 32), np.float32)}, directory / TENSORS)


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("no card", "holds no lens.json; train a lens"),
        ("more in the card", "does not describe a tuned lens"),
        ("no json", "does not describe a tuned lens"),
        ("no tensors", "not a readable safetensors file"),
        ("another width", r"\[3, 8, 8\].* needs .*\[3, 32, 32\]"),
        ("another name", "needs .*bias"),
    ],
)
def test_damaged_lenses_are_refused(model, drawn, tmp_path, what, message):
    write_lens(tmp_path, drawn, card_of(model))
    broken(tmp_path, what)
    with pytest.raises(CheckpointError, match=message) as error:
        model.with_lens(tmp_path)
    assert "\n" not in str(error.value)


def test_the_lens_of_another_model_is_refused(model, drawn, tmp_path):
    write_lens(tmp_path, drawn, card_of(model, model="other", checkpoint="0" * 64))
    with pytest.raises(
        CheckpointError, match=r"is a tuned lens of other \(3 layers of width 32\), .* not those of tiny"
    ):
        model.with_lens(tmp_path)
    assert model.with_lens(None).lens is None


def test_a_lens_is_not_overwritten(model, texts, tuned):
    with pytest.raises(ConfigError, match="already holds a lens"):
        tune(model, texts, "counts", RECIPE, tuned[0])
