"""Architectures that jaxtrace does not support: what differs, and the nearest one that it supports."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from typing import Any

from jaxtrace.errors import shown
from jaxtrace.models.families import FAMILIES

_EXPERTS = "it is a mixture of experts with another router or other experts"
_LATENT = "it has multi-head latent attention"
_LATENT_EXPERTS = "it is a mixture of experts with multi-head latent attention"
_RECURRENT = "it has state-space or recurrent layers instead of attention"
_HYBRID = "it has state-space, linear-attention or convolution layers beside attention"
_IMAGES = "it is a model of images and text"
_SOUND = "it is a model of sound and text"
_ENCODER = "it is an encoder, not a causal language model"
_ENCODER_DECODER = "it has an encoder beside the decoder"
_ALIBI = "its positions are linear biases of attention (ALiBi)"
_MULTIPLIERS = "it has multipliers of embeddings, residuals, scores and logits"
_PARALLEL = "its attention and feed-forward run in parallel on one norm, with partial rotary positions"
_PARALLEL_SCALED = "its attention and feed-forward run in parallel on one LayerNorm, and its logits are scaled"
_OWN_NAMES = "its weights have the names of its own code"
_MIXED = "some of its layers have a window, and some have none"
_PAIRS = "its rotary positions turn neighbouring dimensions"

# What differs, the nearest supported model type, and the model types, in the names of transformers, of code on the hub
# and of llama.cpp.
DIFFERENCES: tuple[tuple[str, str, str], ...] = (
    (_EXPERTS, "mixtral", "dbrx grok grok_1 solar_open"),
    (_EXPERTS, "mixtral", "arctic aria_text bailing_moe bailingmoe bailingmoe2 cohere2_moe deepseek ernie4_5_moe"),
    (_EXPERTS, "mixtral", "granitemoe granitemoe_swa granitemoeshared jetmoe openmoe"),
    (_EXPERTS, "mixtral", "dots3_note dots3_note_text inkling_text inkling2_text inkling2_loop_text muse_spark"),
    (_EXPERTS, "mixtral", "skywork_moe zaya phimoe"),
    (_EXPERTS, "qwen3_moe", "laguna afmoe beam exaone_moe flint hunyuan_moe hunyuan_v1_moe hy_v3 kolibri1 lfm3"),
    (_EXPERTS, "qwen3_moe", "mellum mimo_v2_flash sarvam_moe step3p5 step3p7"),
    (_LATENT, "llama", "minicpm3 plm youtu"),
    (_LATENT_EXPERTS, "llama", "axk1 axk2 deepseek2 deepseek_v2 deepseek_v3 deepseek_v32 deepseek_v4 glm4_moe_lite"),
    (_LATENT_EXPERTS, "llama", "glm5_next glm_moe_dsa hy_v4 kimi_k2 kimi_k3 longcat_flash sarvam_mla"),
    (_LATENT_EXPERTS, "mistral", "mistral4 mistral_large4"),
    (_RECURRENT, "llama", "arwkv7 falcon_mamba hyena mamba mamba2 rwkv rwkv5 rwkv6 rwkv6qwen2 rwkv7 stripedhyena"),
    (_RECURRENT, "llama", "xlstm"),
    (_RECURRENT, "gemma2", "recurrent_gemma"),
    (_HYBRID, "llama", "bailing_hybrid bamba falcon_h1 granitehybrid granitemoehybrid jamba kimi_linear lfm2 lfm2_moe"),
    (_HYBRID, "llama", "minimax minimax_text_01 nemotron_h olmo_hybrid plamo2 zamba zamba2"),
    (_HYBRID, "qwen3", "lara_mini qwen4_exp qwen4_exp_text"),
    (
        "it has gated delta nets, which jaxtrace reads from safetensors only",
        "qwen3_5",
        "qwen35 qwen35moe qwen3next",
    ),
    (_IMAGES, "llama", "aya_vision bunny_phi chameleon cogvlm cogvlm2 cohere2_vision deepseek_ocr2 deepseek_vl"),
    (_IMAGES, "llama", "deepseek_vl_v2 emu3 fuyu git glm4v idefics2 idefics3 internvl_chat internvl_chat_v2 kimi_k25"),
    (_IMAGES, "llama", "kimi_vl llama4_vision_model llava llava_llama llava_next llava_onevision minicpmo minicpmv"),
    (_IMAGES, "llama", "minicpmv4_6 minimax_m3 mllama_vision_model molmo molmo2 perception_lm smolvlm step1v"),
    (_IMAGES, "mistral", "idefics llava_mistral pixtral"),
    (_IMAGES, "qwen2", "got_ocr2 ovis2 qwen2_5_vl qwen2_5_vl_text qwen2_vl qwen2_vl_text"),
    (_IMAGES, "qwen3", "internvl qwen3_vl qwen3_vl_moe qwen3_vl_moe_text qwen3_vl_text"),
    (_IMAGES, "gemma2", "paligemma"),
    (_SOUND, "llama", "audioflamingo3 bark csm granite_speech moshi musicgen omni_speech_llama ultravox voxtral"),
    (_SOUND, "qwen2", "qwen2_5_omni qwen2_audio"),
    (_SOUND, "qwen3", "qwen3_asr qwen3_omni_moe"),
    (_ENCODER, "gpt2", "albert bert bert_generation big_bird camembert convbert data2vec_text deberta deberta_v2"),
    (_ENCODER, "gpt2", "distilbert electra ernie esm eurobert flaubert gte ibert jina_bert_v2 layoutlm layoutlmv3"),
    (_ENCODER, "gpt2", "longformer megatron_bert mobilebert modernbert mpnet nomic_bert reformer rembert roberta"),
    (_ENCODER, "gpt2", "roberta_prelayernorm roc_bert roformer squeezebert xlm xlm_roberta xlm_roberta_xl xlnet xmod"),
    (_ENCODER_DECODER, "gpt2", "bart bigbird_pegasus blenderbot blenderbot_small encoder_decoder fsmt led longt5"),
    (_ENCODER_DECODER, "gpt2", "m2m_100 marian mbart mt5 mvp nllb_moe pegasus pegasus_x plbart prophetnet"),
    (_ENCODER_DECODER, "gpt2", "switch_transformers t5 t5encoder trocr umt5 whisper"),
    (_ENCODER_DECODER, "gemma2", "t5gemma"),
    (_ENCODER_DECODER, "gemma3", "t5gemma2"),
    (_ALIBI, "gpt2", "bloom jais mpt refact"),
    ("its positions are sinusoids", "gpt2", "ctrl xglm"),
    ("it normalises after its blocks", "gpt2", "openai_gpt"),
    ("its learned positions begin at 2", "gpt2", "biogpt opt"),
    ("its scores have no factor, and every second layer has a window", "gpt2", "gpt_neo"),
    ("all query heads share one key/value head, whose matrices are stored as one", "gpt2", "gpt_bigcode starcoder"),
    (_PARALLEL, "gpt_neox", "codegen gptj phi phi2"),
    ("its parallel blocks share one norm, or key/value heads", "gpt_neox", "falcon refinedweb refinedwebmodel rw"),
    (_PARALLEL_SCALED, "llama", "cohere cohere2 cohere_compass_text command_r"),
    ("it is a model of images, sound and text", "phi3", "phi4_multimodal"),
    ("its attention has one bias, and its blocks are not parallel", "gpt_neox", "gpt_neox_japanese"),
    ("its attention is block-sparse", "phi3", "phi3small"),
    ("it has LayerNorms and partial rotary positions", "llama", "persimmon stablelm stablelm_epoch"),
    ("it has LayerNorms, and a feed-forward block without a gate", "llama", "codeshell jais2 starcoder2"),
    ("it has LayerNorms", "llama", "orion"),
    ("its norms have no weights, and its q, k and v may be clipped", "olmo2", "olmo"),
    ("it has LayerNorms of 1 + w, and a squared ReLU without a gate", "llama", "nemotron"),
    ("its feed-forward block is a squared ReLU without a gate", "llama", "arcee"),
    ("its norms have no weights, and its feed-forward block is a squared ReLU without a gate", "qwen3", "nanochat"),
    ("its activation is xIELU, without a gate", "qwen3", "apertus apertus1p5_text"),
    ("it normalises queries and keys after the rotation", "qwen3", "hunyuan_dense hunyuan_v1_dense"),
    ("its q/k norms are those of single heads, and some layers have no rope", "olmo3", "exaone4"),
    ("it has no norms after its blocks and no soft-caps", "gemma2", "gemma"),
    ("it has no norms after its blocks", "gemma2", "vaultgemma"),
    ("it has alternating updates and low-rank residuals", "gemma4", "gemma3n gemma3n_text"),
    (_MULTIPLIERS, "llama", "granite granite_swa hyperclovax minicpm"),
    (_PAIRS, "llama", "chatglm ernie4_5 glm glm4 helium"),
    ("the bias of its attention's output is a setting of its own", "qwen2", "seed_oss"),
    (_MIXED, "llama", "cwm"),
    ("its attention is the difference of two softmaxes", "llama", "diffllama"),
    ("some of its layers run several times", "llama", "dory hrm_text"),
    ("its tokens are patches of bytes", "llama", "blt"),
    ("its positions are relative biases of attention", "gpt2", "cpmant"),
    ("its attention mask is learned", "llama", "doge"),
    ("it has norms within its blocks, for weights of three values", "llama", "bitnet"),
    ("its layers differ in width", "llama", "deci nemotron_nas openelm"),
    (_OWN_NAMES, "llama", "aquila baichuan internlm internlm2 xverse yi"),
    (_OWN_NAMES, "qwen2", "qwen"),
)
# Attributes and parts of a model type that say what an architecture beyond the table is.
_HINTS: tuple[tuple[str, str, str], ...] = (
    (_EXPERTS, "num_experts num_local_experts n_routed_experts moe_intermediate_size", "moe"),
    (_LATENT, "kv_lora_rank", ""),
    (_ENCODER_DECODER, "encoder_layers num_encoder_layers", "encoder_decoder"),
    (_IMAGES, "vision_config mm_vision_tower visual", "vl vision llava"),
    (_SOUND, "audio_config speech_config", "audio asr speech omni"),
    (_HYBRID, "ssm_cfg mamba_d_state state_size linear_num_value_heads", "mamba rwkv ssm hybrid"),
    (_ENCODER, "", "bert"),
)


def _plain(name: str) -> str:
    """Return a name without what differs between the spellings of one architecture: "Qwen3-Moe" → "qwen3moe"."""
    return re.sub("[^a-z0-9]", "", name.lower())


_KNOWN = {_plain(name): (text, nearest) for text, nearest, names in DIFFERENCES for name in names.split()}
_HEADS = re.compile("(For|LMHead|DoubleHeads|WithLMHead|Model|Decoder$).*")  # of a class: MixtralForCausalLM → Mixtral


def unsupported(config: Mapping[str, Any]) -> str:
    """Return a sentence on a config whose `model_type` is no key of `FAMILIES`: what differs, and what is nearest.

    Args:
      config: content of config.json; its `architectures` count where it has no `model_type`. A GGUF architecture is
        a model type too: `{"model_type": "qwen3moe"}`.
    """
    kind, architectures = config.get("model_type"), config.get("architectures")
    classes = [name for name in architectures if isinstance(name, str)] if isinstance(architectures, list) else []
    if kind is None and classes:
        if family := next((key for key, module in FAMILIES.items() if classes[0] in module.ARCHITECTURES), None):
            return f'config.json has no model_type, and its architecture is {classes[0]}; add "model_type": "{family}"'
        kind = _HEADS.sub("", classes[0])
    if kind is None:
        return f"config.json has no model_type; add one that jaxtrace supports: {', '.join(FAMILIES)}"
    named = f"its architecture {shown(repr(kind))} is not supported"
    difference, nearest = _compare(str(kind), config)
    if difference is None and nearest is None:
        return f"{named}; jaxtrace supports {', '.join(FAMILIES)}"
    named = f"{named}: {difference}" if difference else named
    return f"{named}; the nearest supported architecture is {nearest or 'llama'}"


def _compare(kind: str, config: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """Return what differs, if that is known, and the nearest supported architecture, if one is near."""
    text = config.get("text_config")
    text = text if isinstance(text, dict) else {}
    inside = text["model_type"] if text.get("model_type") in list(FAMILIES) else None  # it may be unhashable
    if (plain := _plain(kind)) in _KNOWN:
        difference, nearest = _KNOWN[plain]
        return difference, inside or nearest
    held = {name for name, value in {**text, **config}.items() if value}
    words = {*re.split("[^a-z0-9]+", kind.lower())}
    hints = (hint for hint, names, parts in _HINTS if held & {*names.split()} or words & {*parts.split()})
    families = {_plain(name): name for name in FAMILIES}
    beginnings = sorted((name for name in families if plain.startswith(name)), key=len, reverse=True)
    near = beginnings or difflib.get_close_matches(plain, families, n=1, cutoff=0.75)
    return next(hints, None), inside or next((families[name] for name in near), None)
