"""Sizes of the kernels' arguments: as text, as realistic defaults, and their cost in matrix products."""

from __future__ import annotations

from benchmarks.shapes import SHAPES

AxisSizes = dict[str, int]  # axis letter → size

AXES = {
    "softmax_moments": "RV",
    "unembed_moments": "GRDV",
    "decode_attention": "BSNKH",
    "prefill_attention": "BTSNKH",
    "head_dispersion": "BTSNKH",
}


def parse_shape(text: str, op: str) -> AxisSizes:
    """Return the sizes in text such as "R=6,V=32000", in the order of AXES.

    Raises:
      ValueError: the text is not such a list, its axes are not the operation's, or their sizes do not agree.
    """
    pairs = [part.partition("=") for part in text.split(",")]
    sizes = {axis: size for axis, _, size in pairs}
    if sorted(axis for axis, _, _ in pairs) != sorted(AXES[op]):
        raise ValueError(f"{text}: has the wrong axes; {op} takes {','.join(f'{axis}=…' for axis in AXES[op])}")
    if not all(size.isdecimal() and int(size) for size in sizes.values()):
        raise ValueError(f"{text}: has a size that is not a positive integer; give 1 or more")
    shape = {axis: int(sizes[axis]) for axis in AXES[op]}
    if shape.get("T", 1) > shape.get("S", 1):
        raise ValueError(f"{text}: {shape['T']} queries do not fit into {shape['S']} slots; give T ≤ S")
    if "K" in shape and shape["N"] % shape["K"]:
        raise ValueError(
            f"{text}: {shape['N']} query heads cannot share {shape['K']} key/value heads evenly; give a multiple"
        )
    return shape


def shape_text(shape: AxisSizes) -> str:
    """Return the sizes as `parse_shape` reads them."""
    return ",".join(f"{axis}={size}" for axis, size in shape.items())


def flops(op: str, shape: AxisSizes) -> int:
    """Return the operations of the matrix products; attention counts visible keys only."""
    if op == "unembed_moments":
        return 2 * shape["G"] * shape["R"] * shape["D"] * shape["V"]
    products = {"decode_attention": 2, "prefill_attention": 2, "head_dispersion": 1}.get(op, 0)
    if not products:
        return 0
    t, s = shape.get("T", 1), shape["S"]
    visible = t * s - t * (t - 1) // 2  # keys that the last T of S positions see, summed over positions
    return 2 * products * shape["B"] * shape["N"] * shape["H"] * visible


def default_shapes(op: str) -> list[AxisSizes]:
    """Return sizes of two models: the 15M and the Llama-3.2-1B one."""
    small, large = (_axes(name) for name in ("15m", "llama-3.2-1b"))
    match op:
        case "softmax_moments":
            sizes = [{"R": r, "V": model["V"]} for model in (small, large) for r in (1, 6, 16, 96)]
        case "unembed_moments":
            groups = {6: small, 16: large}
            rows = [(1, 1), (0, 1), (1, 16), (6, 16)]  # (groups, rows): output; every lens; output of 16 rows; 96 rows
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


def _caches(small: AxisSizes, large: AxisSizes) -> list[tuple[AxisSizes, int]]:
    return [(small, 512), (large, 512), (large, 4096)]


def _axes(model: str) -> AxisSizes:
    config = SHAPES[model]
    return {
        "D": config["hidden_size"],
        "V": config["vocab_size"],
        "N": config["num_attention_heads"],
        "K": config["num_key_value_heads"],
        "H": config["head_dim"],
    }
