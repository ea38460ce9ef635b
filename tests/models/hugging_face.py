"""Tiny random Llamas of transformers, and what they compute. Importing this without torch skips the test module."""

import numpy as np
import pytest
import transformers

from tests.tracing.reference import Run

torch = pytest.importorskip("torch")

LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
PLAIN = {"rope_type": "default", "rope_theta": 500.0}


def tiny(seed=0, **choices):
    """A three-layer Llama with every weight random, biases and norms too, and heads that look in different places."""
    config = transformers.LlamaConfig(
        **{
            "vocab_size": 41,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 128,
            "rope_parameters": PLAIN,
            "attn_implementation": "eager",
            **choices,
        }
    )
    model = transformers.LlamaForCausalLM(config).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            noise = torch.randn(weight.shape, generator=generator)
            weight.copy_(1 + 0.2 * noise if "norm" in name else 0.2 * noise)
    return model


@torch.no_grad()
def run(model, tokens):
    """Its forward pass over one sequence: float32 arrays, as transformers computed them."""
    last = []
    hook = model.model.norm.register_forward_pre_hook(lambda _, inputs: last.append(inputs[0]))
    out = model(torch.tensor([tokens]), output_attentions=True, output_hidden_states=True, use_cache=False)
    hook.remove()
    hidden = torch.stack([*out.hidden_states[:-1], last[0]])[:, 0]  # the last of them is after the final norm
    lens = model.lm_head(model.model.norm(hidden[1:]))
    attention = torch.stack(out.attentions)[:, 0]
    arrays = (out.logits[0], lens.movedim(0, 1), hidden.movedim(0, 1), attention.movedim(2, 0))
    return Run(*(np.ascontiguousarray(x.numpy()) for x in arrays))


def load(directory):
    """A checkpoint on disk as transformers runs it."""
    return transformers.AutoModelForCausalLM.from_pretrained(
        directory, attn_implementation="eager", dtype=torch.float32, local_files_only=True
    ).eval()
