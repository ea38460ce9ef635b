"""Plain runs of transformers, as its users run it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM

Rows = Sequence[Sequence[int]]


def load(directory: Path) -> Any:
    """Load the checkpoint in float32, with one thread per core."""
    torch.set_num_threads(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32, attn_implementation="sdpa")
    return model.eval()


@torch.inference_mode()
def generate(model: Any, prompts: Rows, new: int) -> np.ndarray:
    """Return greedy tokens [B, new] of transformers' own `generate`."""
    model.set_attn_implementation("sdpa")
    ids = torch.tensor(prompts)
    mask = torch.ones_like(ids)
    out = model.generate(ids, attention_mask=mask, do_sample=False, max_new_tokens=new, min_new_tokens=new)
    return out[:, ids.shape[1] :].numpy()


@torch.inference_mode()
def generate_loop(model: Any, prompts: Rows, new: int) -> np.ndarray:
    """Return greedy tokens [B, new] of a hand-written loop over the key/value cache, without `generate`'s overhead."""
    model.set_attn_implementation("sdpa")
    feed, cache, tokens = torch.tensor(prompts), None, []
    for _ in range(new):
        out = model(feed, past_key_values=cache, use_cache=True, logits_to_keep=1)
        feed, cache = out.logits[:, -1].argmax(-1, keepdim=True), out.past_key_values
        tokens.append(feed)
    return torch.cat(tokens, dim=1).numpy()


@torch.inference_mode()
def score(model: Any, texts: Rows) -> np.ndarray:
    """Return the log-probability of every token but the first, [B, T − 1]."""
    model.set_attn_implementation("sdpa")
    ids = torch.tensor(texts)
    logits = model(ids, use_cache=False).logits[:, :-1]
    chosen = logits.gather(-1, ids[:, 1:, None])[..., 0]
    return (chosen - logits.logsumexp(-1)).numpy()
