"""Tuned lens: zero translators are the logit lens, training lowers the KL, files are read strictly."""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from jaxtrace import CheckpointError, ConfigError, Model, Probes
from jaxtrace.checkpoints.random import RandomCheckpoint
from jaxtrace.engine.translators import Translators
from jaxtrace.engine.tuned_lens import CARD, TENSORS, LensCard, write_lens
from jaxtrace.errors import StoreError
from jaxtrace.lock import WriteLock
from jaxtrace.training import tuned_lens as training
from jaxtrace.training.loop import STATE
from jaxtrace.training.settings import LensRecipe
from jaxtrace.training.tuned_lens import held_out_kl, train, tune
from tests import oracle
from tests.engine.conftest import CONFIG
from tests.training.kills import states_of_kills

LENS = ("lens_entropy", "lens_varentropy", "lens_kl", "lens_top1", "lens_top1_prob")
RECIPE = LensRecipe(steps=30, batch=4, length=16, learning_rate=3e-3)


def card_of(model, /, **changes):
    fields = {
        "model": model.name,
        "checkpoint": model.fingerprint(),
        "layers": model.config.num_layers,
        "embed": model.config.embed_dim,
        "text": "none",
        "tokens": 0,
        "recipe": {},
        "held_out": 0,
        "kl_logit": (),
        "kl_tuned": (),
    }
    return LensCard(**fields | changes)


@pytest.fixture(scope="module")
def random_translators():
    """Translators with random parameters."""
    rng = np.random.default_rng(0)
    shapes = {name: x.shape for name, x in vars(Translators.zeros(CONFIG)).items()}
    return Translators(**{name: np.float32(rng.normal(0, 0.1, shape)) for name, shape in shapes.items()})


def traced(model, prompts, **probes):
    return model.generate(prompts, max_new_tokens=2, probes=Probes.of("output", "lens", **probes))


def test_zero_translators_are_the_logit_lens(model, prompts, tmp_path):
    write_lens(tmp_path, Translators.zeros(CONFIG), card_of(model))
    logit, tuned = traced(model, prompts), traced(model.with_lens(tmp_path), prompts)
    for row, other in zip(logit.rows, tuned.rows, strict=True):
        for name in LENS:
            np.testing.assert_array_equal(row.metrics[name], other.metrics[name], err_msg=name)
    assert logit.info["lens"] == "logit" and len(tuned.info["lens"]) == 64


def test_lens_metrics_use_translated_streams(model, prompts, random_translators, tmp_path):
    write_lens(tmp_path, random_translators, card_of(model))
    every = tuple(range(1, CONFIG.num_layers + 1))
    trace = traced(model.with_lens(tmp_path), prompts, residuals=every)
    scored = model.with_lens(tmp_path).score(prompts[:1], probes=Probes.of("lens", layer_stride=2))
    table = np.asarray(model.params["unembedding"], np.float64)
    norm = np.asarray(model.params["final_norm"]["weight"], np.float64)
    for row in trace.rows:
        x = row.metrics["residuals"].astype(np.float64)
        for layer in every[:-1]:
            x[:, layer - 1] += (
                x[:, layer - 1] @ random_translators.weight[layer].T.astype(np.float64) + random_translators.bias[layer]
            )
        x *= norm / np.sqrt(np.mean(x**2, -1, keepdims=True) + CONFIG.norm_eps)
        np.testing.assert_allclose(row.metrics["lens_entropy"], oracle.entropy(x @ table.T), atol=2e-5)
        np.testing.assert_array_equal(row.metrics["lens_entropy"][:, -1], row.metrics["entropy"])
    last = scored.rows[0].metrics["lens_entropy"][-1]
    np.testing.assert_allclose(last, trace.rows[0].metrics["lens_entropy"][0, ::2], atol=1e-5)  # layers 1 and 3


@pytest.fixture(scope="module")
def texts():
    """Texts in which every token determines the next one."""
    rng = np.random.default_rng(2)
    starts = rng.integers(0, CONFIG.vocab_size, 60)
    return [np.int32((start + 3 * np.arange(16)) % CONFIG.vocab_size) for start in starts]


@pytest.fixture(scope="module")
def tuned(model, texts, tmp_path_factory):
    """Directory, card, held-out KLs and losses of a trained lens."""
    directory = tmp_path_factory.mktemp("tuned") / "lens"
    losses = []
    card, kl = tune(model, texts, "counts", RECIPE, directory, lambda step, loss: losses.append((step, loss)))
    return directory, card, kl, losses


def test_training_lowers_the_kl_to_the_last_layer(model, texts, tuned):
    directory, card, kl, losses = tuned
    assert [step for step, _ in losses] == [*range(1, 31)]
    assert kl["logit"].shape == kl["tuned"].shape == (card.held_out, CONFIG.num_layers) and 6 <= card.held_out <= 9
    assert card.texts == len({text.tobytes() for text in texts}) < 60 and 2 <= card.held_out_texts <= 6
    np.testing.assert_allclose(card.kl_tuned, kl["tuned"].mean(0))
    assert np.all(kl["tuned"].mean(0) < 0.9 * kl["logit"].mean(0)), (kl["logit"].mean(0), kl["tuned"].mean(0))
    reloaded = model.with_lens(directory)
    lens_kl = reloaded.score([texts[0].tolist()], probes=Probes.of("lens")).rows[0].metrics["lens_kl"]
    expected = held_out_kl(CONFIG, model.params, reloaded.lens.translators, texts[0][None])[0]
    np.testing.assert_allclose(lens_kl.mean(0)[:-1], expected[1:], rtol=1e-4, atol=1e-5)
    assert not (directory / STATE).exists()


def test_a_resumed_training_writes_the_same_lens(model, texts, tuned, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "SAVE_EVERY", 10)

    def interrupt(step, _):
        if step == 15:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tune(model, texts, "counts", RECIPE, tmp_path / "lens", interrupt)
    steps = []
    tune(model, texts, "counts", RECIPE, tmp_path / "lens", lambda step, _: steps.append(step))
    assert steps == [*range(11, 31)]
    assert (tmp_path / "lens" / TENSORS).read_bytes() == (tuned[0] / TENSORS).read_bytes()


def test_the_state_of_another_model_of_the_same_config_is_refused(texts, tmp_path):
    first, second = (
        Model.from_checkpoint(RandomCheckpoint(f"tiny {seed}", CONFIG, seed), dtype=np.float32, mesh=None)
        for seed in (0, 1)
    )
    recipe, state = RECIPE.model_copy(update={"steps": 1}), tmp_path / STATE
    sequences = np.stack(texts)
    train(first, sequences, recipe, state)
    with pytest.raises(ConfigError, match="training of another model"):
        train(second, sequences, recipe, state)


def of_tensors(**shapes):
    """Return a function that replaces the tensors of a lens in a directory."""
    return lambda at: save_file({name: np.zeros(s, np.float32) for name, s in shapes.items()}, at / TENSORS)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda at: (at / CARD).unlink(), "holds no lens.json; train a lens"),
        (
            lambda at: (at / CARD).write_text(json.dumps(json.loads((at / CARD).read_text()) | {"more": 1})),
            "does not describe a tuned lens",
        ),
        (lambda at: (at / CARD).write_text("{"), r"does not describe a tuned lens \(Expecting .*; train it again"),
        (lambda at: (at / TENSORS).write_bytes(b"nothing"), "not a readable safetensors file"),
        (of_tensors(weight=(3, 8, 8), bias=(3, 8)), r"\[3, 8, 8\].* needs .*\[3, 32, 32\]"),
        (of_tensors(weight=(3, 32, 32)), "needs .*bias"),
    ],
    ids=["card missing", "unknown field", "card not JSON", "tensors unreadable", "other width", "tensor missing"],
)
def test_damaged_lenses_are_refused(model, random_translators, tmp_path, damage, message):
    write_lens(tmp_path, random_translators, card_of(model))
    damage(tmp_path)
    with pytest.raises(CheckpointError, match=message) as error:
        model.with_lens(tmp_path)
    assert "\n" not in str(error.value)


def test_the_lens_of_another_model_is_refused(model, random_translators, tmp_path):
    write_lens(tmp_path, random_translators, card_of(model, model="other", checkpoint="0" * 64))
    with pytest.raises(CheckpointError, match=r"lens of other \(3 layers of width 32\), .* not those of tiny"):
        model.with_lens(tmp_path)
    assert model.with_lens(None).lens is None


def test_an_existing_lens_is_not_overwritten(model, texts, tuned):
    with pytest.raises(ConfigError, match="already holds a lens"):
        tune(model, texts, "counts", RECIPE, tuned[0])


def test_training_killed_after_its_last_step_gives_the_same_lens(model, texts, tmp_path):
    recipe = RECIPE.model_copy(update={"steps": 1})
    with states_of_kills(tmp_path / "lens", tmp_path / "copies") as copies:
        tune(model, texts, "counts", recipe, tmp_path / "lens")
    contents = [{path.name for path in copy.glob("*")} for copy in copies]
    first = next(i for i, names in enumerate(contents) if {TENSORS, STATE} <= names)
    last = next(i for i, names in enumerate(contents) if {CARD, STATE} <= names)
    for copy in (copies[first], copies[last]):
        tune(model, texts, "counts", recipe, copy)
        for name in (TENSORS, CARD):
            assert (copy / name).read_bytes() == (tmp_path / "lens" / name).read_bytes()
        assert not (copy / STATE).exists()
    with pytest.raises(ConfigError, match="already holds a lens"):
        tune(model, texts, "counts", recipe, copies[first])


def test_second_training_in_a_directory_is_refused(model, texts, tmp_path):
    with WriteLock(tmp_path), pytest.raises(StoreError, match="has been writing it since"):
        tune(model, texts, "counts", RECIPE, tmp_path)
