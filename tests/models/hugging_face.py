"""Tiny random models of transformers and their outputs. Importing this without torch skips the test module."""

import copy
import inspect
import re

import numpy as np
import pytest
import transformers

from tests import oracle
from tests.engine.float64_llama import joined_choices
from tests.engine.reference import Run
from tests.models.cases import SMALL

torch = pytest.importorskip("torch")


WITH_IMAGES = ("mistral3", "llama4", "qwen3_5", "qwen3_5_moe")
RECURRENT = "linear_attention"  # type of layers without attention weights
OFFSET_NORMS = ("gemma2", "gemma3", "qwen3_5", "qwen3_next")  # families that add 1 to the weights of their norms


def tiny(kind="llama", seed=0, **choices):
    """Return a small model with random weights, biases and norms, whose heads attend to different positions."""
    config = transformers.AutoConfig.for_model(kind, **copy.deepcopy(SMALL[kind] | choices))  # it changes its arguments
    if (config.get_text_config().pad_token_id or 0) >= config.get_text_config().vocab_size:
        config.pad_token_id = None  # the default of Phi-3 and SmolLM3 is a token that small models lack
    auto = transformers.AutoModelForImageTextToText if kind in WITH_IMAGES else transformers.AutoModelForCausalLM
    model = auto.from_config(config, attn_implementation="eager").eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            noise = 0.2 * torch.randn(weight.shape, generator=generator)
            norm = name.endswith("scale") or (name.endswith("weight") and ("norm" in name or ".ln_" in name))
            one = 0 if kind.startswith(OFFSET_NORMS) and "linear_attn" not in name else 1
            small = "gemma4" in kind and "q_norm" in name  # Gemma 4 does not scale scores by 1/√H
            weight.copy_((one + noise) * (0.4 if small else 1) if norm else noise)
            if name.endswith("A_log"):  # memories of a few and of many positions
                weight.uniform_(-4, 1, generator=generator)
        for name, scalar in model.named_buffers():
            if name.endswith("layer_scalar"):
                scalar.uniform_(0.5, 1.5, generator=generator)
            if name.endswith("e_score_correction_bias"):
                scalar.normal_(0, 0.2, generator=generator)
    return model


@torch.no_grad()
def run(model, tokens, prompt=None):
    """Run transformers over one sequence; return its float32 arrays.

    The first `prompt` tokens are fed at once, each other token after its predecessors' cache; None feeds all at once.
    """
    if isinstance(model, transformers.Llama4ForConditionalGeneration):
        model = model.language_model  # its own forward pass fails in transformers 5.24
    inputs_of_norm, decoder = [], model.get_decoder()
    decoder = getattr(decoder, "model", decoder)  # Llama 4's is the model with its head
    norm = next(getattr(decoder, name) for name in ("norm", "ln_f", "final_layer_norm") if hasattr(decoder, name))
    pieces = [tokens] if prompt is None else [tokens[:prompt], *([token] for token in tokens[prompt:])]
    options = {"output_attentions": True, "output_hidden_states": True}
    config = model.config.get_text_config()
    types = getattr(config, "layer_types", None) or ["full_attention"] * config.num_hidden_layers
    hybrid = {"config": config} if RECURRENT in types else {}
    options |= {"use_cache": False} if prompt is None else {"cache": transformers.DynamicCache(**hybrid)}
    hook = norm.register_forward_pre_hook(lambda _, inputs: inputs_of_norm.append(inputs[0]))
    choices: list[list] = []
    layers = decoder.h if hasattr(decoder, "h") else decoder.layers
    hooks = [hook, *(keep_choices(layer, choices) for layer in layers)]
    outs = [model(torch.tensor([piece]), **options) for piece in pieces]
    for hook in filter(None, hooks):
        hook.remove()
    # The last hidden state is after the final norm.
    before = [torch.stack([*out.hidden_states[:-1], x])[:, 0] for out, x in zip(outs, inputs_of_norm, strict=True)]
    hidden = torch.cat(before, dim=1)
    lens = model.get_output_embeddings()(norm(hidden[1:]))
    cap = getattr(config, "final_logit_softcapping", None)
    lens = lens if cap is None else cap * torch.tanh(lens / cap)
    pad = torch.nn.functional.pad
    weights = [torch.stack(out.attentions)[:, 0] for out in outs]
    attention = torch.cat([pad(x, (0, len(tokens) - x.shape[-1])) for x in weights], dim=2)
    if len(attention) < len(types):  # transformers returns those of layers with attention
        attending = [i for i, name in enumerate(types) if name != RECURRENT]
        attention = torch.full((len(types), *attention.shape[1:]), torch.nan).index_copy_(
            0, torch.tensor(attending), attention
        )
    logits = torch.cat([out.logits[0] for out in outs])
    choices = [tuple(map(np.concatenate, zip(*calls, strict=True))) for calls in choices]
    routers = joined_choices(choices) if any(choices) else ()
    arrays, sink = [logits, lens.movedim(0, 1), hidden.movedim(0, 1), attention.movedim(2, 0)], None
    if model.config.model_type == "gpt_oss":  # what its weights lack to 1 is the sink's
        over_keys = arrays[-1].sum(-1, keepdim=True)
        arrays[-1], sink = arrays[-1] / over_keys, (1 - over_keys[..., 0]).numpy()
    return Run(*(np.ascontiguousarray(x.numpy()) for x in arrays), *routers, learned_sink=sink)


def keep_choices(layer, choices):
    """Append a list for (distribution over all experts, chosen experts) of each call of the layer's router, if any."""
    choices.append(kept := [])
    names = re.compile("Top[Kk]Router$|Gemma4TextRouter|Llama4Router")
    router = next((module for module in layer.modules() if names.search(type(module).__name__)), None)
    if router is None:
        return None
    name, source = type(router).__name__, inspect.getsource(type(router).forward)

    def keep(_, inputs, outputs):
        if name == "Llama4Router":
            logits, chosen = outputs[1], outputs[1].topk(router.top_k).indices
        else:
            logits, _, chosen = outputs
        scoring = "sigmoid" if "sigmoid" in source else "softmax"
        p = logits.numpy() if "router_probabilities" in source else oracle.router_distribution(logits.numpy(), scoring)
        kept.append((p, chosen.numpy()))

    return router.register_forward_hook(keep)


def load(directory):
    """Load a checkpoint from disk as a float32 model with eager attention."""
    return transformers.AutoModelForCausalLM.from_pretrained(
        directory, attn_implementation="eager", dtype=torch.float32, local_files_only=True
    ).eval()
