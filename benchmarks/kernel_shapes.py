"""Shapes of the kernels' arguments: as text, as realistic defaults, and what they cost in matrix products."""

from __future__ import annotations

from benchmarks.shapes import SHAPES

Shape = dict[str, int]  # axis letter → size

AXES = {
    "softmax_moments": "RV",
    "unembed_moments": "GRDV",
    "decode_attention": "BSNKH",
    "prefill_attention": "BTSNKH",
    "head_dispersion": "BTSNKH",
}


def parse_shape(text: str, op: str) -> Shape:
    """A shape from text such as "R=6,V=32000", its axes in the order of AXES.

    Raises:
      ValueError: the text is no such list, its axes are not the operation's, or their sizes do not agree.
    """
    pairs = [part.partition("=") for part in text.split(",")]
    sizes = {axis: size for axis, _, size in pairs}
    if sorted(axis for axis, _, _ in pairs) != sorted(AXES[op]):
        raise ValueError(f"{text}: {op} takes {','.join(f'{axis}=…' for axis in AXES[op])}")
    if not all(size.isdecimal() and int(size) for size in sizes.values()):
        raise ValueError(f"{text}: sizes are whole numbers from 1 on")
    shape = {axis: int(sizes[axis]) for axis in AXES[op]}
    if shape.get("T", 1) > shape.get("S", 1):
        raise ValueError(f"{text}: {shape['T']} queries do not fit into {shape['S']} slots")
    if "K" in shape and shape["N"] % shape["K"]:
        raise ValueError(f"{text}: {shape['N']} query heads cannot share {shape['K']} key/value heads evenly")
    return shape


def shape_text(shape: Shape) -> str:
    """The shape as `parse_shape` takes it."""
    return ",".join(f"{axis}={size}" for axis, size in shape.items())


def flops(op: str, shape: Shape) -> int:
    """Floating-point operations of the matrix products, of attention over the visible keys alone."""
    match op:
        case "unembed_moments":
            return 2 * shape["G"] * shape["R"] * shape["D"] * shape["V"]
        case "decode_attention":
            return 4 * shape["B"] * shape["N"] * shape["H"] * shape["S"]
        case "prefill_attention":
            return 4 * shape["B"] * shape["N"] * shape["H"] * _visible_pairs(shape)
        case "head_dispersion":
            return 2 * shape["B"] * shape["N"] * shape["H"] * _visible_pairs(shape)
    return 0


def _visible_pairs(shape: Shape) -> int:
    """Keys that the last T of S positions see, summed over them."""
    t, s = shape["T"], shape["S"]
    return t * s - t * (t - 1) // 2


def default_shapes(op: str) -> list[Shape]:
    """Shapes that models have: the 15M and the Llama-3.2-1B one."""
    small, large = (_axes(name) for name in ("15m", "llama-3.2-1b"))
    match op:
        case "softmax_moments":
            sizes = [{"R": r, "V": model["V"]} for model in (small, large) for r in (1, 6, 16, 96)]
        case "unembed_moments":
            groups = {6: small, 16: large}
            rows = [(1, 1), (0, 1), (1, 16), (6, 16)]  # output alone, with every lens, of 16 rows; 96 rows
            sizes = [model | {"G": g or layers, "R": r} for layers, model in groups.items() for g, r in rows]
        case "decode_attention":
            sizes = [model | {"B": b, "S": s} for model, s in _caches(small, large) for b in (1, 16)]
        case "prefill_attention":
            texts = [(4, 256, 512), (1, 2048, 2048)]
            sizes = [model | {"B": b, "T": t, "S": s} for model in (small, large) for b, t, s in texts]
        case _:
            decode = [model | {"B": b, "T": 1, "S": s} for model, s in _caches(small, large) for b in (1, 16)]
            sizes = [*decode, *(model | {"B": 4, "T": 256, "S": 512} for model in (small, large))]
    return [{axis: size[axis] for axis in AXES[op]} for size in sizes]


def _caches(small: Shape, large: Shape) -> list[tuple[Shape, int]]:
    return [(small, 512), (large, 512), (large, 4096)]


def _axes(model: str) -> Shape:
    config = SHAPES[model]
    return {
        "D": config["hidden_size"],
        "V": config["vocab_size"],
        "N": config["num_attention_heads"],
        "K": config["num_key_value_heads"],
        "H": config["head_dim"],
    }
