"""Settings of generation_config.json that a run ignores."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Names that change no token: ids that are read elsewhere, caches, outputs, and ways to the same tokens in less time.
INERT = {
    *("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id", "transformers_version"),
    *("return_dict_in_generate", "is_assistant", "prompt_lookup_num_tokens", "max_matching_ngram_size"),
    *("target_lookbehind", "speculation_type", "disable_compile", "compile_config", "continuous_batching_config"),
    *("low_memory", "prefill_chunk_size", "max_cache_len", "use_mtp"),
}
INERT_PREFIXES = ("_", "output_", "assistant_", "num_assistant_", "cache_", "use_cache", "return_legacy_cache")
NEUTRAL_AT_ONE = {
    *("temperature", "top_p", "typical_p", "repetition_penalty", "encoder_repetition_penalty", "length_penalty"),
    *("num_beams", "num_beam_groups", "num_return_sequences", "guidance_scale"),
}
SAMPLING = {"temperature", "top_k", "top_p", "min_p", "top_h", "typical_p", "epsilon_cutoff", "eta_cutoff"}


def ignored_settings(generation: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entries of generation_config.json that change transformers' tokens, but not the run's.

    Args:
      generation: content of the file.
      settings: settings of the run under the same names; entries that agree with them are not ignored.
    """
    return {
        name: value
        for name, value in generation.items()
        if name not in INERT
        and not name.startswith(INERT_PREFIXES)
        and value  # null, false, 0 and an empty list switch a rule off
        and not (name in NEUTRAL_AT_ONE and value == 1)
        and not (name in SAMPLING and not generation.get("do_sample"))  # transformers ignores them too
        and settings.get(name) != value
    }
