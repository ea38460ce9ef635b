"""Tiny random Llama 3.2 Vision models of transformers and their outputs; importing this without torch skips."""

import dataclasses

import numpy as np
import pytest
import transformers
from transformers.models.mllama.processing_mllama import (
    convert_sparse_cross_attention_mask_to_dense,
    get_cross_attention_token_mask,
)

from tests import oracle
from tests.engine import reference
from tests.models.cases import PLAIN

torch = pytest.importorskip("torch")

IMAGE_TOKEN = 43  # the vocabulary has 41 tokens, the embedding 8 more rows
TEXT = {
    "vocab_size": 41,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 5,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "rope_parameters": PLAIN,
    "cross_attention_layers": [1, 3],
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
VISION = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 4,
    "num_global_layers": 2,
    "attention_heads": 2,
    "image_size": 12,
    "patch_size": 4,
    "max_num_tiles": 4,
    "intermediate_layers_indices": [0, 2],
    "vision_output_dim": 48,
}


@dataclasses.dataclass(frozen=True)
class ImageRun:
    """Outputs of transformers for one sequence, float32.

    Attributes:
      logits: next-token logits [T, V].
      hidden: residual streams [L + 1, T, D]; a skipped layer leaves the stream unchanged.
      attention: weights [N, T, S] per layer over S text positions or image vectors; None for a skipped layer.
    """

    logits: np.ndarray
    hidden: np.ndarray
    attention: list[np.ndarray | None]


def config(text=None, vision=None):
    """Return the config with changes to the text's or the image encoder's part."""
    return transformers.MllamaConfig(
        text_config={**TEXT, **(text or {})},
        vision_config={**VISION, **(vision or {})},
        image_token_index=IMAGE_TOKEN,
        attn_implementation="eager",
    )


def tiny(seed=0, **changes):
    """Return a model with random weights, gates and norms, whose heads attend to different positions."""
    model = transformers.MllamaForConditionalGeneration(config(**changes)).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            noise = torch.randn(weight.shape, generator=generator)
            weight.copy_(1 + 0.2 * noise if "norm" in name and name.endswith("weight") else 0.2 * noise)
            if "gate" in name and "gate_proj" not in name:
                weight.copy_(0.5 + 0.5 * noise.abs())
    return model


def images(rng, vision, shapes):
    """Return random tiles of images in the processor's form: (pixels, aspect ratio ids, tile mask).

    Args:
      rng: NumPy generator.
      vision: encoder's config.
      shapes: one list of (height, width) in tiles per row.
    """
    most, side = max(map(len, shapes)), vision.image_size
    tiles = vision.max_num_tiles
    pixels = np.zeros((len(shapes), most, tiles, vision.num_channels, side, side), np.float32)
    ratio = np.zeros((len(shapes), most), np.int64)
    mask = np.zeros((len(shapes), most, tiles), bool)
    mask[:, :, 0] = True
    for b, row in enumerate(shapes):
        for i, (height, width) in enumerate(row):
            pixels[b, i, : height * width] = rng.normal(size=(height * width, *pixels.shape[3:]))
            ratio[b, i] = vision.supported_aspect_ratios.index([height, width]) + 1
            mask[b, i, : height * width] = True
    return pixels, ratio, mask


@torch.no_grad()
def encode(model, pixels, ratio, mask):
    """Return the vectors for the cross-attention layers [B, I · M · patches, D]."""
    inner = model.model
    out = inner.vision_model(torch.tensor(pixels), torch.tensor(ratio), torch.tensor(mask)).last_hidden_state
    return inner.multi_modal_projector(out).flatten(1, 3).numpy()


@torch.no_grad()
def run(model, tokens, images=None):
    """Run the forward pass over one sequence.

    Args:
      model: reference model.
      tokens: token ids [T].
      images: None for no image, or (pixels, aspect ratio ids, tile mask, visible [T, I, M]) of one row, with its axis.
    """
    layers = model.model.language_model.layers
    after, weights = {}, {}
    hooks = []
    for i, layer in enumerate(layers):
        attention = layer.self_attn if hasattr(layer, "self_attn") else layer.cross_attn
        hooks.append(layer.register_forward_hook(lambda _, __, out, i=i: after.__setitem__(i, out)))
        hooks.append(attention.register_forward_hook(lambda _, __, out, i=i: weights.__setitem__(i, out[1])))
    arguments = {}
    if images is not None:
        names = ("pixel_values", "aspect_ratio_ids", "aspect_ratio_mask", "cross_attention_mask")
        arguments = {name: torch.tensor(np.asarray(x)) for name, x in zip(names, images, strict=True)}
        arguments["cross_attention_mask"] = arguments["cross_attention_mask"][None].to(torch.float32)
    logits = model(torch.tensor([tokens]), use_cache=False, **arguments).logits[0].numpy()
    for hook in hooks:
        hook.remove()
    hidden = [model.model.language_model.embed_tokens(torch.tensor(tokens))]
    for i in range(len(layers)):
        hidden.append(after[i][0] if i in after else hidden[-1])
    attention = [weights[i][0].numpy() if i in weights else None for i in range(len(layers))]
    return ImageRun(logits, torch.stack(hidden).numpy(), attention)


@torch.no_grad()
def greedy(model, processor, tokens, images, steps):
    """Return the greedy tokens after a prompt with Pillow images; masks come from the model's processor."""
    inputs = processor([images], return_tensors="pt")
    tiles = inputs.pop("num_tiles")
    spans = get_cross_attention_token_mask(tokens, IMAGE_TOKEN)
    mask = convert_sparse_cross_attention_mask_to_dense([spans], tiles, processor.max_image_tiles, len(tokens))
    model.generation_config.eos_token_id = None
    drawn = model.generate(
        torch.tensor([tokens]),
        attention_mask=torch.ones(1, len(tokens), dtype=torch.int64),
        cross_attention_mask=torch.tensor(mask),
        max_new_tokens=steps,
        do_sample=False,
        **inputs,
    )
    return drawn[0, len(tokens) :].numpy()


def metrics(model, run, targets, visible=None):
    """Return {metric name: [T, …]} of a run, and its lens logits [T, L, V].

    Args:
      model: reference model of the run.
      run: run of one sequence.
      targets: next token of each position [T], −1 for none.
      visible: mask of the tiles that each position sees [T, I · M]; None for no image.
    """
    with torch.no_grad():
        lens = model.lm_head(model.model.language_model.norm(torch.tensor(run.hidden[1:]))).movedim(0, 1).numpy()
    cross = [i for i, layer in enumerate(model.model.language_model.layers) if hasattr(layer, "cross_attn")]
    text_weights = next(weights for i, weights in enumerate(run.attention) if i not in cross)
    attention = np.stack([text_weights if i in cross else weights for i, weights in enumerate(run.attention)])
    arrays = (run.logits, lens, run.hidden.swapaxes(0, 1), attention.transpose(2, 0, 1, 3))
    values = reference.metrics(reference.Run(*arrays), targets)
    for i in cross:
        shape = values["attention_entropy"][:, i].shape
        for name, metric in _cross_attention_metrics(run.attention[i], visible, shape).items():
            values[name][:, i] = metric
    return values, lens


def _cross_attention_metrics(weights, visible, shape):
    """Return the metrics of a cross-attention layer; NaN without images."""
    metrics = {name: np.full(shape, np.nan) for name in oracle.attention_row(np.ones(1), None, None)}
    metrics |= {name: np.full(shape[:1], np.nan) for name in ("hdi", "head_jsd")}
    if weights is None:
        return metrics
    for t, tiles in enumerate(visible):
        keys = np.repeat(tiles if tiles.any() else np.ones_like(tiles), weights.shape[-1] // len(tiles))
        rows = weights[:, t, keys].astype(np.float64)
        rows /= rows.sum(axis=-1, keepdims=True)
        for n, row in enumerate(rows):
            for name, value in oracle.attention_row(row, None, None).items():
                metrics[name][t, n] = value
        metrics["head_jsd"][t] = oracle.head_jsd(rows)
    return metrics | {"hdi": oracle.head_dispersion(metrics["attention_entropy"])}
