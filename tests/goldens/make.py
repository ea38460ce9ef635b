"""Write the goldens; needs torch. From the root of the repository:

python -m tests.goldens.make
"""

import json
import tempfile
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from tests.goldens.golden import FOLDER, Golden
from tests.models import hugging_face
from tests.models.cases import LLAMA3, LONGROPE

SMALL = {"vocab_size": 29, "hidden_size": 24, "intermediate_size": 32, "num_attention_heads": 3}
GROUPED = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8}
CASES = {
    "multi_head_untied": ("llama", {"num_key_value_heads": 3}),
    "multi_query_tied_llama3": (
        "llama",
        {"num_key_value_heads": 1, "tie_word_embeddings": True, "rope_parameters": LLAMA3},
    ),
    "grouped_biases_llama3": (
        "llama",
        GROUPED | {"attention_bias": True, "mlp_bias": True, "rope_parameters": LLAMA3},
    ),
    "qwen3": ("qwen3", GROUPED),
    "gemma2": ("gemma2", GROUPED),
    "gemma3": ("gemma3_text", GROUPED),
    "phi3_longrope": (
        "phi3",
        {"hidden_size": 32, "num_attention_heads": 4, "num_key_value_heads": 2}
        | {"original_max_position_embeddings": 16, "rope_parameters": LONGROPE},
    ),
    "gpt_neox": ("gpt_neox", {}),
    "olmo3": ("olmo3", GROUPED),
    "ministral3": ("ministral3", GROUPED),
    "gemma4": ("gemma4_text", {"num_attention_heads": 2, "num_key_value_heads": 1}),
    "gpt2": ("gpt2", {"vocab_size": 29, "n_embd": 24, "n_head": 3, "n_positions": 48}),
}
LENGTH = 40


def make(name):
    """Compute one golden with transformers (eager, float32)."""
    kind, choices = CASES[name]
    model = hugging_face.tiny(kind, **(choices if kind == "gpt2" else SMALL | choices))
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        config = json.loads((Path(folder) / "config.json").read_text())
        weights = load_file(Path(folder) / "model.safetensors")
    tokens = np.random.default_rng(0).integers(0, model.config.vocab_size, LENGTH)
    return Golden(config, weights, tokens, hugging_face.run(model, tokens.tolist()))


if __name__ == "__main__":
    for case in CASES:
        make(case).save(FOLDER / f"{case}.npz")
