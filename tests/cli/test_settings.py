"""Numbers that the API refuses, and settings that a file may hold."""

from pathlib import Path

import jax
import pytest

from jaxtrace import ConfigError, DecoderConfig, Model, init_params
from jaxtrace.models.config import LayerKind, Rope
from jaxtrace.run import RunConfig, run_config

CONFIG = DecoderConfig(
    family="llama",
    vocab=8,
    embed=8,
    layers=1,
    heads=1,
    kv_heads=1,
    head_dim=8,
    feed_forward=8,
    context=16,
    pattern=(LayerKind(rope=Rope(10.0)),),
)


@pytest.fixture(scope="module")
def model():
    return Model("tiny", CONFIG, init_params(CONFIG, jax.random.key(0)))


@pytest.mark.parametrize(
    ("verb", "setting", "value", "least"),
    [
        ("generate", "max_new_tokens", 0, 1),
        ("generate", "max_new_tokens", -3, 1),
        ("generate", "batch_size", 0, 1),
        ("generate", "batch_size", -1, 1),
        ("generate", "stop_repeats", -1, 0),
        ("score", "batch_size", 0, 1),
        ("score", "batch_size", -1, 1),
    ],
)
@pytest.mark.parametrize("prompts", [[], [[1, 2]]], ids=["no prompt", "one prompt"])
def test_counts_out_of_range(model, verb, setting, value, least, prompts):
    with pytest.raises(ConfigError) as error:
        getattr(model, verb)(prompts, **{setting: value})
    assert str(error.value) == f"{setting}={value} is out of range; give {least} or more"


def test_defaults_are_valid_and_every_field_can_be_written_down():
    config = run_config()
    assert RunConfig.model_validate_json(config.model_dump_json(exclude_defaults=True)) == config


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"max_new_tokens": 0}, "settings: max_new_tokens: Input should be greater than or equal to 1"),
        ({"batch_size": 2.5}, "settings: batch_size: Input should be a valid integer"),
        ({"sampler": "beam"}, "settings: sampler: Input should be 'greedy', 'sample', 'entropix' or 'dslider'"),
        ({"alphas": (-1.0,)}, "alphas -1: orders of Rényi entropies are 0 or at least 0.01"),
        ({"seed": -1}, "settings: seed: Input should be greater than or equal to 0"),
        ({"seed": 2**32}, "settings: seed: Input should be less than 4294967296"),
    ],
)
def test_fields_out_of_range(fields, message):
    with pytest.raises(ConfigError) as error:
        run_config(**fields)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("image", [None, "a.png"])
def test_a_lone_text_and_image(tmp_path, image):
    file, given = tmp_path / "run.yaml", {} if image is None else {"image": image}
    file.write_text("text: What is\n" + "".join(f"{name}: {value}\n" for name, value in given.items()))
    config = run_config(file)
    assert config.text == ("What is",)
    assert config.image == (() if image is None else (Path(image),))
    assert config == run_config(text=["What is"], image=[image] if image else [])
    assert config == run_config(text="What is", **({"image": Path(image)} if image else {}))


def test_a_text_that_is_no_text():
    with pytest.raises(ConfigError, match="text"):
        run_config(text=5)
