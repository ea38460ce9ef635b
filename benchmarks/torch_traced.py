"""Metrics of jaxtrace's trace, computed in PyTorch from transformers' outputs.

Attention is eager and returns weights and hidden states. The code is written for speed: all layers at once, one product
with the unembedding for the output and every lens, and small result tensors that are joined once at the end.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

Metrics = dict[str, torch.Tensor]  # [B, T, …]
ALPHAS = (0.5, 2.0, 5.0)
BLOCK_ENTRIES = 1 << 26  # logits of one block of positions: 256 MiB in float32


@torch.inference_mode()
def generate(
    model: Any, prompts: Sequence[Sequence[int]], new: int, stop_tokens: Sequence[int] = ()
) -> dict[str, np.ndarray]:
    """Decode prompts greedily, and return every metric of every step, [B, steps, …].

    Shorter prompts are padded on the left. Once every row has drawn a stop token, there are no more steps.
    """
    model.set_attn_implementation("eager")
    lengths = torch.tensor([len(prompt) for prompt in prompts])
    longest = int(lengths.max())
    padding = None if (lengths == longest).all() else longest - lengths
    feed = torch.tensor([[0] * (longest - len(prompt)) + [*prompt] for prompt in prompts])
    prompt: Any = longest if padding is None else lengths[:, None, None, None]
    cache, before, steps = None, None, []
    stops, stopped = torch.tensor([*stop_tokens], dtype=torch.long), torch.zeros(len(prompts), dtype=torch.bool)
    with _last_residual(model) as last:
        for i in range(new):
            place = {} if padding is None else _place(padding, longest + i, feed.shape[1])
            out = model.model(
                feed, past_key_values=cache, use_cache=True, output_attentions=True, output_hidden_states=True, **place
            )
            stream = torch.stack([*out.hidden_states[:-1], last[0]])
            if stream.shape[2] > 1:
                before, stream = stream[:, :, -2:-1], stream[:, :, -1:]
            weights = torch.stack([layer[:, :, -1:] for layer in out.attentions])
            visible = torch.tensor([weights.shape[-1]])
            if padding is not None:
                weights, visible = _without_padding(weights, padding), (visible - padding)[:, None, None]
            metrics, logits = _outputs(model, stream[1:])
            metrics |= _joined(_attention(weights, visible, prompt)) | _hidden(stream, before)
            feed, cache, before = logits[:, -1].argmax(-1, keepdim=True), out.past_key_values, stream
            metrics |= {"token": feed, "logprob": _logprob(logits, feed)}
            steps.append(metrics)
            stopped |= torch.isin(feed[:, 0], stops)
            if stopped.all():
                break
    return {name: torch.cat([step[name] for step in steps], dim=1).numpy() for name in steps[0]}


def _place(padding: torch.Tensor, length: int, fed: int) -> dict[str, torch.Tensor]:
    """Return the mask of the padding, and the position of each token that is fed."""
    positions = torch.arange(length)[None] - padding[:, None]
    return {"attention_mask": (positions >= 0).long(), "position_ids": positions[:, -fed:].clamp_min(0)}


def _without_padding(weights: torch.Tensor, padding: torch.Tensor) -> torch.Tensor:
    """Return weights [L, B, N, 1, S] with the padding, whose weight is 0, after each row's keys."""
    keys = (torch.arange(weights.shape[-1]) + padding[:, None]) % weights.shape[-1]
    return weights.gather(-1, keys[None, :, None, None].expand_as(weights))


@torch.inference_mode()
def score(model: Any, texts: Sequence[Sequence[int]]) -> dict[str, np.ndarray]:
    """Return every metric of every position of texts of one length, [B, T, …]; no token follows the last."""
    model.set_attn_implementation("eager")
    ids = torch.tensor(texts)
    targets = torch.nn.functional.pad(ids[:, 1:], (0, 1))
    with _last_residual(model) as last:
        out = model.model(ids, use_cache=False, output_attentions=True, output_hidden_states=True)
    stream = torch.stack([*out.hidden_states[:-1], last[0]])
    visible = torch.arange(1, ids.shape[1] + 1)
    by_layer = [_attention(weights[None], visible, ids.shape[1]) for weights in out.attentions]
    metrics = _joined({name: torch.cat([layer[name] for layer in by_layer]) for name in by_layer[0]})
    before = torch.cat([torch.full_like(stream[:, :, :1], math.nan), stream[:, :, :-1]], dim=2)
    metrics |= _hidden(stream, before)
    width = max(1, BLOCK_ENTRIES // (len(ids) * (len(stream) - 1) * model.config.vocab_size))
    blocks = []
    for residual, target in zip(stream[1:].split(width, dim=2), targets.split(width, dim=1), strict=True):
        outputs, logits = _outputs(model, residual)
        blocks.append(outputs | {"logprob": _logprob(logits, target)})
    metrics |= {name: torch.cat([block[name] for block in blocks], dim=1) for name in blocks[0]}
    metrics["token"] = targets
    metrics["token"][:, -1], metrics["logprob"][:, -1] = -1, math.nan
    return {name: x.numpy() for name, x in metrics.items()}


@contextmanager
def _last_residual(model: Any) -> Iterator[list[torch.Tensor]]:
    """Yield a list with the residual stream after the last block, which `hidden_states` holds only normalised."""
    latest = [torch.empty(0)]

    def keep(module: Any, args: Any) -> None:
        latest[0] = args[0]

    hook = model.model.norm.register_forward_pre_hook(keep)
    try:
        yield latest
    finally:
        hook.remove()


def _outputs(model: Any, residual: torch.Tensor) -> tuple[Metrics, torch.Tensor]:
    """Return the metrics of the output and every lens from residual streams [L, B, T, D], and the output's logits."""
    normed = model.model.norm.forward(residual)
    logits = model.lm_head(normed)
    log_p = logits.log_softmax(-1)
    p = log_p.exp()
    weighted = p * log_p
    entropy = -weighted.sum(-1)
    varentropy = (weighted * log_p).sum(-1) - entropy.square()
    best, top1 = log_p.max(-1)
    cross = -torch.einsum("btv,lbtv->lbt", p[-1], log_p)
    two = p[-1].topk(2).values
    renyi = [torch.logsumexp(alpha * log_p[-1], -1) / (1 - alpha) for alpha in ALPHAS]
    last = lambda x: x.permute(1, 2, 0)  # noqa: E731
    return {
        "entropy": entropy[-1],
        "varentropy": varentropy[-1],
        "renyi": torch.stack(renyi, dim=-1),
        "top1_prob": two[..., 0],
        "top1_top2_gap": two[..., 0] - two[..., 1],
        "self_certainty": -log_p[-1].mean(-1) - math.log(log_p.shape[-1]),
        "fisher_rao": 2 / math.pi * torch.acos((log_p[-1] / 2).exp().sum(-1) / math.sqrt(log_p.shape[-1])),
        "lens_entropy": last(entropy),
        "lens_varentropy": last(varentropy),
        "lens_kl": last(cross - entropy[-1]),
        "lens_top1": last(top1),
        "lens_top1_prob": last(best.exp()),
    }, logits[-1]


def _logprob(logits: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    return logits.gather(-1, tokens[..., None])[..., 0] - logits.logsumexp(-1)


def _attention(weights: torch.Tensor, visible: torch.Tensor, prompt: int | torch.Tensor) -> Metrics:
    """Return metrics [L, B, N, T] and [L, B, T] of weights [L, B, N, T, S].

    Args:
      visible: number of visible keys of each query, [T] or [B, 1, 1], the last of which is its own position.
      prompt: number of positions of the prompt; of each row [B, 1, 1, 1], if they differ.
    """
    if isinstance(prompt, int):
        on_prompt = weights[..., :prompt].sum(-1)
    else:
        on_prompt = (weights * (torch.arange(weights.shape[-1]) < prompt)).sum(-1)
    log = weights.clamp_min(torch.finfo(weights.dtype).tiny).log()
    weighted = weights * log
    entropy = -weighted.sum(-1)
    sink = weights[..., 0]
    no_sink = weights[..., 1:]
    share = no_sink / no_sink.sum(-1, keepdim=True).clamp_min(torch.finfo(weights.dtype).tiny)
    log_visible = visible.clamp_min(2).log()
    mixture = weights.mean(2)
    at = lambda key: weights.gather(-1, key.expand(*weights.shape[:-2], -1)[..., None])[..., 0]  # noqa: E731
    return {
        "attention_entropy": entropy,
        "attention_varentropy": (weighted * log).sum(-1) - entropy.square(),
        "attention_entropy_normalized": torch.where(visible > 1, entropy / log_visible, 0.0),
        "attention_entropy_no_sink": -torch.xlogy(share, share).sum(-1),
        "sink_mass": sink,
        "attention_self": at(visible - 1),
        "attention_previous": torch.where(visible > 1, at((visible - 2).clamp_min(0)), 0.0),
        "attention_prompt_mass": on_prompt,
        "attention_max": weights.amax(-1),
        "hdi": entropy.std(2, correction=0),
        "head_jsd": -torch.xlogy(mixture, mixture).sum(-1) - entropy.mean(2),
    }


def _joined(metrics: Metrics) -> Metrics:
    """Permute [L, B, N, T] to [B, T, L, N] and [L, B, T] to [B, T, L]."""
    return {name: x.permute(1, 3, 0, 2) if x.ndim == 4 else x.permute(1, 2, 0) for name, x in metrics.items()}


def _hidden(stream: torch.Tensor, before: torch.Tensor | None) -> Metrics:
    """Return norms and differences of residual streams [L + 1, B, T, D], given the streams one position earlier."""
    assert before is not None  # a prompt has at least two tokens
    metrics = {
        "hidden_norm": stream.norm(dim=-1),
        "hidden_delta_layer": (stream[1:] - stream[:-1]).norm(dim=-1),
        "hidden_delta_step": (stream - before).norm(dim=-1),
        "hidden_cosine_layer": torch.cosine_similarity(stream[1:], stream[:-1], dim=-1),
    }
    return {name: x.permute(1, 2, 0) for name, x in metrics.items()}
