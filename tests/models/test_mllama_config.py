"""Configs of Llama 3.2 Vision as the hub serves them and as transformers writes them; this needs no torch."""

import copy
import json

import pytest
import transformers

from jaxtrace import ConfigError
from jaxtrace.models.config import LayerKind
from jaxtrace.models.families.mllama import decoder_config
from jaxtrace.models.rope_config import Llama3Scaling, Rope

# transformers 4.45 wrote the attributes of all configs into every part of a config.
COMMON = {
    "_name_or_path": "",
    "add_cross_attention": False,
    "architectures": None,
    "bad_words_ids": None,
    "begin_suppress_tokens": None,
    "chunk_size_feed_forward": 0,
    "cross_attention_hidden_size": None,
    "decoder_start_token_id": None,
    "diversity_penalty": 0.0,
    "do_sample": False,
    "early_stopping": False,
    "encoder_no_repeat_ngram_size": 0,
    "exponential_decay_length_penalty": None,
    "finetuning_task": None,
    "forced_bos_token_id": None,
    "forced_eos_token_id": None,
    "id2label": {"0": "LABEL_0", "1": "LABEL_1"},
    "is_decoder": False,
    "is_encoder_decoder": False,
    "label2id": {"LABEL_0": 0, "LABEL_1": 1},
    "length_penalty": 1.0,
    "max_length": 20,
    "min_length": 0,
    "no_repeat_ngram_size": 0,
    "num_beam_groups": 1,
    "num_beams": 1,
    "num_return_sequences": 1,
    "output_attentions": False,
    "output_hidden_states": False,
    "output_scores": False,
    "prefix": None,
    "problem_type": None,
    "pruned_heads": {},
    "remove_invalid_values": False,
    "repetition_penalty": 1.0,
    "return_dict": True,
    "return_dict_in_generate": False,
    "sep_token_id": None,
    "suppress_tokens": None,
    "task_specific_params": None,
    "temperature": 1.0,
    "tf_legacy_loss": False,
    "tie_encoder_decoder": False,
    "tokenizer_class": None,
    "top_k": 50,
    "top_p": 1.0,
    "torchscript": False,
    "typical_p": 1.0,
    "use_bfloat16": False,
}
INSTRUCT_11B = {
    "architectures": ["MllamaForConditionalGeneration"],
    "image_token_index": 128256,
    "model_type": "mllama",
    "text_config": {
        **COMMON,
        "bos_token_id": 128000,
        "cross_attention_layers": [3, 8, 13, 18, 23, 28, 33, 38],
        "dropout": 0,
        "eos_token_id": [128001, 128008, 128009],
        "hidden_act": "silu",
        "hidden_size": 4096,
        "initializer_range": 0.02,
        "intermediate_size": 14336,
        "max_position_embeddings": 131072,
        "model_type": "mllama_text_model",
        "num_attention_heads": 32,
        "num_hidden_layers": 40,
        "num_key_value_heads": 8,
        "pad_token_id": 128004,
        "rms_norm_eps": 1e-05,
        "rope_scaling": {
            "factor": 8.0,
            "high_freq_factor": 4.0,
            "low_freq_factor": 1.0,
            "original_max_position_embeddings": 8192,
            "rope_type": "llama3",
        },
        "rope_theta": 500000.0,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "use_cache": True,
        "vocab_size": 128256,
    },
    "torch_dtype": "bfloat16",
    "transformers_version": "4.45.0.dev0",
    "vision_config": {
        **COMMON,
        "attention_heads": 16,
        "bos_token_id": None,
        "eos_token_id": None,
        "hidden_act": "gelu",
        "hidden_size": 1280,
        "image_size": 560,
        "initializer_range": 0.02,
        "intermediate_layers_indices": [3, 7, 15, 23, 30],
        "intermediate_size": 5120,
        "max_num_tiles": 4,
        "model_type": "mllama_vision_model",
        "norm_eps": 1e-05,
        "num_channels": 3,
        "num_global_layers": 8,
        "num_hidden_layers": 32,
        "pad_token_id": None,
        "patch_size": 14,
        "supported_aspect_ratios": [[1, 1], [1, 2], [1, 3], [1, 4], [2, 1], [2, 2], [3, 1], [4, 1]],
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
        "vision_output_dim": 7680,
    },
}


def changed(text=None, vision=None, **top):
    config = copy.deepcopy(INSTRUCT_11B) | top
    config["text_config"] |= text or {}
    config["vision_config"] |= vision or {}
    return config


BASE_11B = changed(vision={"image_size": 448})
INSTRUCT_90B = changed(
    text={
        "cross_attention_layers": list(range(3, 100, 5)),
        "hidden_size": 8192,
        "intermediate_size": 28672,
        "num_attention_heads": 64,
        "num_hidden_layers": 100,
    }
)


def test_config_from_the_hub():
    config = decoder_config(INSTRUCT_11B, "test")
    assert (config.embed_dim, config.num_layers, config.num_heads, config.kv_heads, config.head_dim) == (
        4096,
        40,
        32,
        8,
        128,
    )
    assert (config.vocab_size, config.extra_tokens, config.image_token, config.tied) == (128256, 8, 128256, False)
    text = LayerKind(rope=Rope(500000.0, Llama3Scaling(8.0, 1.0, 4.0, 8192)))
    image = LayerKind(rope=None, cross_attention=True)
    assert config.pattern == (text, text, text, image, text)
    vision = config.vision
    assert (vision.embed_dim, vision.num_layers, vision.global_layers, vision.num_heads) == (1280, 32, 8, 16)
    assert (vision.patches, vision.max_tiles, vision.output_width) == (1601, 4, 7680)
    assert vision.aspect_ratios[4:6] == ((2, 1), (2, 2))


@pytest.mark.parametrize("config", [INSTRUCT_11B, BASE_11B, INSTRUCT_90B], ids=["11B Instruct", "11B", "90B Instruct"])
def test_configs_survive_a_round_trip_through_transformers(config):
    written = transformers.MllamaConfig.from_dict(copy.deepcopy(config)).to_dict()
    assert decoder_config(json.loads(json.dumps(written)), "test") == decoder_config(config, "test")


def test_defaults_equal_those_of_transformers():
    default = transformers.MllamaConfig().to_dict()
    assert decoder_config({"model_type": "mllama"}, "test") == decoder_config(default, "test")
    empty = {
        "text_config": {"cross_attention_layers": None},
        "vision_config": {"intermediate_layers_indices": None, "supported_aspect_ratios": None},
    }
    filled = transformers.MllamaConfig.from_dict(copy.deepcopy(empty)).to_dict()
    assert decoder_config(empty, "test") == decoder_config(filled, "test") == decoder_config(default, "test")


def test_pattern_may_have_no_period():
    config = decoder_config(changed(text={"num_hidden_layers": 5, "cross_attention_layers": [0, 1, 4]}), "test")
    assert [kind.cross_attention for kind in config.kinds] == [True, True, False, False, True]


@pytest.mark.parametrize(
    ("config", "part"),
    [
        (changed(image_token_index=128264), "image_token_index=128264, beyond its 128264 embedded tokens"),
        (changed(rope_theta=2.0), "does not support: rope_theta=2.0"),
        (changed(text={"v_head_dim": 2}), "(text_config): the config has attributes that jaxtrace does not support"),
        (
            changed(vision={"per_layer_config": {}}),
            "(vision_config): the config has attributes that jaxtrace does not support",
        ),
        (changed(text={"hidden_act": "gelu"}), "hidden_act='gelu'"),
        (changed(text={"tie_word_embeddings": True}), "tie_word_embeddings=True"),
        (changed(text={"cross_attention_layers": "all"}), "cross_attention_layers='all', which must be a list"),
        (changed(text={"rope_scaling": {"rope_type": "mrope"}}), "rope scaling 'mrope'"),
        (changed(vision={"hidden_act": "quick_gelu"}), "hidden_act='quick_gelu'; jaxtrace supports 'gelu'"),
        (changed(vision={"attention_heads": 7}), "hidden_size=1280, which is not a multiple of 7 attention heads"),
        (
            changed(vision={"patch_size": 16, "image_size": 450}),
            "image_size=450, which is not a multiple of patch_size=16",
        ),
        (changed(vision={"image_size": [560, 560]}), "image_size=[560, 560]"),
        (changed(vision={"vision_output_dim": 6400}), "vision_output_dim=6400, but its layers give 7680"),
        (changed(vision={"intermediate_layers_indices": [3, 32]}), "intermediate_layers_indices=[3, 32] of 32 layers"),
        (changed(vision={"intermediate_layers_indices": []}), "intermediate_layers_indices=[] of 32 layers"),
        (changed(vision={"intermediate_layers_indices": [-1]}), "must be a list of layer numbers"),
        (
            changed(vision={"supported_aspect_ratios": [[1, 5]]}),
            "supported_aspect_ratios=[[1, 5]]; jaxtrace supports [[1, 1], [1, 2]",
        ),
        (changed(vision={"max_num_tiles": 3}), "jaxtrace supports [[1, 1], [1, 2], [1, 3], [2, 1], [3, 1]]"),
        *(
            (changed(text={"cross_attention_layers": junk}), "which must be a list of layer numbers")
            for junk in ([True], [1, False], [1.0], ["1"], 3)
        ),
        (changed(vision={"intermediate_layers_indices": [True]}), "must be a list of layer numbers"),
        (changed(text={"num_hidden_layers": 10**30}), "which is above 10000"),
        (changed(vision={"num_hidden_layers": 10**30}), "which is above 10000"),
        (changed(vision={"num_global_layers": 10**30}), "which is above 10000"),
        (changed(vision={"max_num_tiles": 10**6}), "max_num_tiles=1000000, which is above 64"),
        (changed(text={"vocab_size": None}), "vocab_size=None, which must be a positive whole number"),
        (changed(vision={"hidden_size": None}), "hidden_size=None, which must be a positive whole number"),
        (changed(tie_word_embeddings="no"), "tie_word_embeddings='no', which must be true or false"),
        (changed(vision={"tie_word_embeddings": 1}), "tie_word_embeddings=1, which must be true or false"),
        ({"vision_config": []}, "vision_config=[], which must be an object"),
    ],
    ids=str,
)
def test_unsupported_values_are_refused(config, part):
    with pytest.raises(ConfigError) as error:
        decoder_config(config, "a checkpoint")
    message = str(error.value)
    assert part in message and message.startswith("a checkpoint") and "\n" not in message
