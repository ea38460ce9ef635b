"""Attributes of config.json that are left unread: logged, recorded, chosen by the user; and heads that are missing."""

import json
import logging

import pytest

import jaxtrace
from jaxtrace import CheckpointError, ConfigError
from jaxtrace.checkpoints.huggingface import read_config
from tests.commands import run_command

UNEMBEDDING = "lm_head.weight"
ODD = {
    "use_cache": True,
    "rope_scaling": None,
    "unk_token_id": 0,
    "internal_version": "7b",
    "auto_map": {"AutoModel": "m"},
}


def test_ignored_attributes_are_logged_once_and_recorded(folder, caplog):
    folder.config |= ODD
    with caplog.at_level(logging.INFO, "jaxtrace"):
        model = jaxtrace.load(folder.write())
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("INFO", f"{folder.path}: config attributes without effect: unk_token_id, use_cache"),
        (
            "WARNING",
            f"{folder.path}: ignored config attributes: auto_map (its code is never run), "
            "internal_version (unknown to transformers)",
        ),
    ]
    info = model.generate([[1, 2]], max_new_tokens=1).info
    assert info["ignored_config"] == {
        "auto_map": "its code is never run",
        "internal_version": "unknown to transformers",
        "unk_token_id": "inert",
        "use_cache": "inert",
    }


def test_a_config_that_is_read_whole_logs_nothing(folder, caplog):
    with caplog.at_level(logging.INFO, "jaxtrace"):
        assert jaxtrace.load(folder.write()).ignored_config == {}
    assert not caplog.records


REFUSED = {"attention_chunk_size": 8, "quantization_config": {"quant_method": "gptq"}, "rope_scaling": {"type": "yarn"}}


@pytest.mark.parametrize("random", [False, True])
def test_ignore_config_reads_a_config_as_if_the_attributes_were_absent(folder, random):
    plain = jaxtrace.load(folder.write()).config
    folder.config |= REFUSED
    folder.write()
    model = jaxtrace.load(str(folder.path), random=random, ignore_config=tuple(REFUSED))
    assert model.config == plain
    assert model.ignored_config == dict.fromkeys(REFUSED, "ignore_config")
    with pytest.raises((ConfigError, CheckpointError)):
        jaxtrace.load(str(folder.path), random=random, ignore_config=("rope_scaling", "attention_chunk_size"))


def test_ignore_config_finds_attributes_of_the_text_part(tmp_path):
    text = {"num_hidden_layers": 1, "v_head_dim": 3, "cls_token_id": 4}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gemma3", "text_config": text}))
    _, config, ignored = read_config(tmp_path, "it", ("v_head_dim",))
    assert config.num_layers == 1
    assert ignored == {"text_config.v_head_dim": "ignore_config", "text_config.cls_token_id": "inert"}


def test_ignore_config_refuses_names_that_are_absent(folder):
    with pytest.raises(ConfigError) as error:
        jaxtrace.load(folder.write(), ignore_config=("rope_scalling", "hidden_act"))
    assert str(error.value) == f"{folder.path}: the config has no rope_scalling; drop it from ignore_config"
    with pytest.raises(ConfigError, match=r"llama-3.2-1b: has no config.json here; drop hidden_act from ignore_config"):
        jaxtrace.load("llama-3.2-1b", random=True, ignore_config=("hidden_act",))


def test_the_command_line_names_what_it_ignores_and_records_it(folder, tmp_path):
    folder.config |= ODD | {"attention_chunk_size": 8}
    prompts, out = tmp_path / "prompts.jsonl", tmp_path / "run"
    prompts.write_text('{"tokens": [1, 2, 3]}\n')
    words = ("trace", folder.write(), "--prompts", prompts, "--max-new-tokens", 1, "--out", out)
    done = run_command(*words)
    assert done.status == 2 and "does not support: attention_chunk_size=8" in done.err
    done = run_command(*words, "--ignore-config", "attention_chunk_size")
    assert done.status == 0, done.err
    assert done.err.count("ignored config attributes") == 1
    assert "attention_chunk_size (ignore_config), auto_map (its code is never run), internal_version (" in done.err
    run = json.loads((out / "run.json").read_text())
    assert run["config"]["ignore_config"] == ["attention_chunk_size"]
    assert run["info"]["ignored_config"]["attention_chunk_size"] == "ignore_config"


CLASSIFIER = ["LlamaForSequenceClassification"]


def test_a_checkpoint_of_another_architecture_without_unembedding_is_refused(folder):
    folder.config["architectures"] = CLASSIFIER
    del folder.weights[UNEMBEDDING]
    with pytest.raises(CheckpointError) as error:
        jaxtrace.load(folder.write())
    assert str(error.value) == (
        f"{folder.path}: its architectures are LlamaForSequenceClassification, not LlamaForCausalLM, and it has no "
        "lm_head.weight; use a causal language model"
    )


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("architectures", [CLASSIFIER, ["LlamaModel"], "LlamaModel"])
def test_a_checkpoint_of_another_architecture_with_all_weights_is_noted(folder, caplog, tied, architectures):
    folder.config |= {"architectures": architectures, "tie_word_embeddings": tied}
    if tied:
        del folder.weights[UNEMBEDDING]
    assert jaxtrace.load(folder.write()).config.tied == tied
    (record,) = caplog.records
    assert "not LlamaForCausalLM; it is traced as a language model" in record.getMessage()
