"""Settings of a run: ranges, YAML files, and what several fields mean together."""

from pathlib import Path

import jax
import pytest

from jaxtrace import ConfigError, DecoderConfig, Model, init_params
from jaxtrace.models.config import LayerKind
from jaxtrace.models.rope_config import Rope
from jaxtrace.settings.run import RunConfig, run_config

CONFIG = DecoderConfig(
    family="llama",
    vocab_size=8,
    embed_dim=8,
    num_layers=1,
    num_heads=1,
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
        ("generate", "batch_size", -1, 1),
        ("generate", "stop_repeats", -1, 0),
        ("score", "batch_size", 0, 1),
    ],
)
def test_the_api_refuses_counts_out_of_range_even_without_prompts(model, verb, setting, value, least):
    with pytest.raises(ConfigError) as error:
        getattr(model, verb)([], **{setting: value})
    assert str(error.value) == f"settings: {setting} is {value}; it must be greater than or equal to {least}"


def test_defaults_are_valid_and_survive_json():
    config = run_config()
    assert RunConfig.model_validate_json(config.model_dump_json(exclude_defaults=True)) == config


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"max_new_tokens": 0}, "settings: max_new_tokens is 0; it must be greater than or equal to 1"),
        ({"batch_size": 2.5}, "settings: batch_size is 2.5; it must be a valid integer"),
        ({"sampler": "beam"}, "settings: sampler is beam; it must be 'greedy', 'sample', 'entropix' or 'dslider'"),
        ({"alphas": (-1.0,)}, "settings: alphas is (-1.0,); each must be 0, 1, inf, or from 0.01 to 1e+06"),
        ({"layer_stride": 0}, "settings: layer_stride is 0; it must be greater than or equal to 1"),
        (
            {"sampler": "sample", "temperature": 1e-38},
            "settings: temperature is 1e-38; it must be greater than or equal to 0.001",
        ),
        (
            {"sampler": "sample", "top_p": 1e-300},
            "settings: top_p is 1e-300; it must be greater than or equal to 0.000001",
        ),
        ({"seed": 2**32}, "settings: seed is 4294967296; it must be less than 4294967296"),
        ({"text": 5}, "settings: text is 5; it must be a valid tuple"),
        ({"samples": 2}, "settings: samples is 2, and the greedy sampler draws equal ones; use sampler 'sample'"),
        ({"temprature": 1}, "settings: temprature: no such setting; did you mean 'temperature'? there are: "),
    ],
)
def test_fields_out_of_range(fields, message):
    with pytest.raises(ConfigError) as error:
        run_config(**fields)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


def test_an_error_names_the_file_only_if_the_file_holds_the_value(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text("limit: 0\n")
    with pytest.raises(ConfigError, match=r"run\.yaml: limit is 0"):
        run_config(file)
    with pytest.raises(ConfigError, match=r"^settings: limit is -1"):
        run_config(file, limit=-1)


def test_another_sampler_drops_the_sampling_fields_of_the_file(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text("sampler: sample\ntemperature: 0.5\n")
    assert run_config(file, sampler="greedy").temperature == 1.0
    assert run_config(file, top_k=3).temperature == 0.5


@pytest.mark.parametrize("image", [None, "a.png"])
def test_a_lone_text_and_image_need_no_list(tmp_path, image):
    file, fields = tmp_path / "run.yaml", {} if image is None else {"image": image}
    file.write_text("text: Here is\n" + "".join(f"{name}: {value}\n" for name, value in fields.items()))
    config = run_config(file)
    assert config.text == ("Here is",)
    assert config.image == (() if image is None else (Path(image),))
    assert config == run_config(text=["Here is"], image=[image] if image else [])
    assert config == run_config(text="Here is", **({"image": Path(image)} if image else {}))


def test_heads_have_the_same_meaning_in_every_form():
    for heads in ("6:0,1:2", ["6:0", "1:2"], [[6, 0], [1, 2]]):
        assert RunConfig(attention_rows=heads).attention_rows == ((6, 0), (1, 2))
