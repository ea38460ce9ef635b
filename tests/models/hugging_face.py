"""Tiny random models of transformers, and what they compute. Importing this without torch skips the test module."""

import numpy as np
import pytest
import transformers

from tests.engine.reference import Run
from tests.models.cases import SMALL

torch = pytest.importorskip("torch")


def tiny(kind="llama", seed=0, **choices):
    """A small model with every weight random, biases and norms too, and heads that look in different places."""
    config = transformers.AutoConfig.for_model(kind, **SMALL[kind] | choices)
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    generator = torch.Generator().manual_seed(seed)
    one = 0 if "gemma" in kind else 1  # Gemma adds it to the weights of its norms
    with torch.no_grad():
        for name, weight in model.named_parameters():
            noise = 0.2 * torch.randn(weight.shape, generator=generator)
            norm = name.endswith("weight") and ("norm" in name or ".ln_" in name)
            weight.copy_(one + noise if norm else noise)
    return model


@torch.no_grad()
def run(model, tokens):
    """Its forward pass over one sequence: float32 arrays, as transformers computed them."""
    last, decoder = [], model.get_decoder()
    norm = decoder.ln_f if model.config.model_type == "gpt2" else decoder.norm
    hook = norm.register_forward_pre_hook(lambda _, inputs: last.append(inputs[0]))
    out = model(torch.tensor([tokens]), output_attentions=True, output_hidden_states=True, use_cache=False)
    hook.remove()
    hidden = torch.stack([*out.hidden_states[:-1], last[0]])[:, 0]  # the last of them is after the final norm
    lens = model.lm_head(norm(hidden[1:]))
    cap = getattr(model.config.get_text_config(), "final_logit_softcapping", None)
    lens = lens if cap is None else cap * torch.tanh(lens / cap)
    attention = torch.stack(out.attentions)[:, 0]
    arrays = (out.logits[0], lens.movedim(0, 1), hidden.movedim(0, 1), attention.movedim(2, 0))
    return Run(*(np.ascontiguousarray(x.numpy()) for x in arrays))


def load(directory):
    """A checkpoint on disk as transformers runs it."""
    return transformers.AutoModelForCausalLM.from_pretrained(
        directory, attn_implementation="eager", dtype=torch.float32, local_files_only=True
    ).eval()
