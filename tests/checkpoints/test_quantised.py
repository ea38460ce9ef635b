"""FP8 and MXFP4 checkpoints: their weights equal float64 arithmetic, transformers, and a plain checkpoint."""

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

import jaxtrace
from jaxtrace import CheckpointError
from jaxtrace.checkpoints.convert import convert
from jaxtrace.checkpoints.huggingface import open_checkpoint
from jaxtrace.checkpoints.quantised import DequantisedTensors, Fp8, Mxfp4
from jaxtrace.checkpoints.safetensors import Tensors
from tests.checkpoints.conftest import CONFIG, GPT_OSS, Folder
from tests.commands import run_command

E4M3, E8M0, BF16 = ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e8m0fnu, ml_dtypes.bfloat16
FP4 = (0, 0.5, 1, 1.5, 2, 3, 4, 6)
BLOCK, STATIC = (5, 3), {"weight_block_size": None, "activation_scheme": "static"}
_WIDE = {"hidden_size": 32, "intermediate_size": 96}  # rows of whole groups of 32
WIDE, WIDE_EXPERTS = CONFIG | _WIDE, GPT_OSS | _WIDE | {"head_dim": 16}
QUERY = "model.layers.1.self_attn.q_proj.weight"
SCALE, BLOCKS, SCALES = f"{QUERY}_scale_inv", f"{QUERY}_blocks", f"{QUERY}_scales"


def random_fp8(rng, shape):
    """Return random 8-bit floats, NaN aside."""
    return rng.choice(np.delete(np.arange(256, dtype=np.uint8), [0x7F, 0xFF]), shape).view(E4M3)


def fp8_values(values, scales, block):
    """Return the product of values and their blocks' scales in float64, rounded to float32."""
    scales = scales.view(E8M0) if scales.dtype == np.uint8 else scales
    scales, (rows, columns) = scales.astype(np.float64), values.shape[-2:]
    if block is not None:
        scales = scales.repeat(block[0], -2)[..., :rows, :].repeat(block[1], -1)[..., :columns]
    return (values.astype(np.float64) * scales).astype(np.float32)


def mxfp4_values(blocks, scales):
    """Return the values of MXFP4 blocks [..., rows, groups, 16] one by one, as [..., rows, 32 × groups]."""
    found = np.empty((*blocks.shape[:-1], 32))
    for index, byte in np.ndenumerate(blocks):
        for i, bits in enumerate((byte & 15, byte >> 4)):
            sign = -1.0 if bits & 8 else 1.0
            found[(*index[:-1], 2 * index[-1] + i)] = sign * FP4[bits & 7] * 2.0 ** (int(scales[index[:-1]]) - 127)
    return found.reshape(*blocks.shape[:-2], -1)


def stored_fp8(rng, folder, block, dtype: Any = np.float32):
    """Store a checkpoint's projections as FP8; return a plain checkpoint's weights of these values."""
    plain = dict(folder.weights)
    settings = {"quant_method": "fp8", "activation_scheme": "dynamic", "fmt": "e4m3", "weight_block_size": block}
    folder.config["quantization_config"] = settings | (STATIC if block is None else {})
    for name, matrix in plain.items():
        if "_proj" in name:
            grid = (
                () if block is None else tuple(-(-size // each) for size, each in zip(matrix.shape, block, strict=True))
            )
            scales = np.asarray(
                2.0 ** rng.integers(-8, 0, grid) if dtype in (E8M0, np.uint8) else rng.random(grid) / 99
            )
            scales = scales.astype(E8M0).view(np.uint8) if dtype == np.uint8 else scales.astype(dtype)
            folder.weights[name] = random_fp8(rng, matrix.shape)
            folder.weights[f"{name}_scale_inv"] = scales
            if block is None:
                folder.weights[name.replace("weight", "activation_scale")] = np.array(0.02, np.float32)
            plain[name] = fp8_values(folder.weights[name], scales, block)
    return plain


def stored_mxfp4(rng, folder):
    """Store a checkpoint's projections as MXFP4; return a plain checkpoint's weights of these values.

    Projections of experts are plain as [expert, input, output].
    """
    plain = dict(folder.weights)
    folder.config["quantization_config"] = {"quant_method": "mxfp4", "modules_to_not_convert": ["lm_head"]}
    for name, matrix in plain.items():
        if "_proj" in name and "bias" not in name:
            del folder.weights[name]
            experts = matrix.ndim == 3
            *rows, columns = (matrix.swapaxes(1, 2) if experts else matrix).shape
            grid = *rows, columns // 32
            blocks = folder.weights[f"{name}_blocks"] = rng.integers(0, 256, (*grid, 16), dtype=np.uint8)
            scales = folder.weights[f"{name}_scales"] = rng.integers(116, 124, grid, dtype=np.uint8)
            values = mxfp4_values(blocks, scales).astype(np.float32)
            plain[name] = np.ascontiguousarray(values.swapaxes(1, 2)) if experts else values
    return plain


STORED = {
    "blocks": lambda rng, folder: stored_fp8(rng, folder, BLOCK),
    "bfloat16 scales": lambda rng, folder: stored_fp8(rng, folder, BLOCK, BF16),
    "e8m0 scales": lambda rng, folder: stored_fp8(rng, folder, BLOCK, E8M0),
    "bytes of scales": lambda rng, folder: stored_fp8(rng, folder, BLOCK, np.uint8),
    "one scale": lambda rng, folder: stored_fp8(rng, folder, None, BF16),
    "mxfp4": stored_mxfp4,
    "mxfp4 experts": stored_mxfp4,
}
CONFIGS = {"mxfp4": WIDE, "mxfp4 experts": WIDE_EXPERTS}


@pytest.mark.parametrize(("kind", "stacked"), [*((kind, False) for kind in STORED), ("blocks", True), ("mxfp4", True)])
def test_a_quantised_checkpoint_equals_a_plain_one_of_its_values(tmp_path, max_difference, kind, stacked):
    folder, plain = (Folder(tmp_path / name, CONFIGS.get(kind, CONFIG)) for name in ("quantised", "plain"))
    plain.weights = STORED[kind](np.random.default_rng(0), folder)
    found, expected = (jaxtrace.load(each.write(), stacked=stacked) for each in (folder, plain))
    assert max_difference(found, expected) == 0
    assert jaxtrace.load(folder.write_sharded()).config == expected.config


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """Tensors of each format with their values: matrices and experts, edge blocks, and NaN."""
    rng, found = np.random.default_rng(1), {}
    for name, settings in {
        "fp8": Fp8(quant_method="fp8", weight_block_size=BLOCK),
        "mxfp4": Mxfp4(quant_method="mxfp4"),
    }.items():
        arrays, values = {}, {}
        for shape in ((7, 96), (3, 7, 64)):
            key = f"experts.{len(shape)}"
            if name == "fp8":
                floats = random_fp8(rng, shape)
                floats.view(np.uint8)[..., 2, 5] = 0x7F  # NaN
                scales = rng.random((*shape[:-2], -(-shape[-2] // 5), -(-shape[-1] // 3))).astype(np.float32)
                arrays |= {key: floats, f"{key}_scale_inv": scales, f"{key}_activation_scale": np.array(3, np.float32)}
                values[key] = fp8_values(floats, scales, BLOCK)
            else:
                blocks = rng.integers(0, 256, (*shape[:-1], shape[-1] // 32, 16), dtype=np.uint8)
                scales = rng.integers(0, 254, blocks.shape[:-1], dtype=np.uint8)
                arrays |= {f"{key}_blocks": blocks, f"{key}_scales": scales}
                values[key] = mxfp4_values(blocks, scales)
                values[key] = values[key].swapaxes(-1, -2) if len(shape) == 3 else values[key]
        directory = tmp_path_factory.mktemp(name)
        save_file(arrays, directory / "model.safetensors")
        found[name] = (DequantisedTensors(Tensors(directory), settings, "test"), values)
    return found


@given(st.data())
def test_any_part_equals_a_cut_of_the_values(stored, data):
    tensors, values = stored[data.draw(st.sampled_from(["fp8", "mxfp4"]))]
    name = data.draw(st.sampled_from([*tensors]))
    assert tensors.shape(name) == values[name].shape
    index = []
    for size in values[name].shape[: data.draw(st.integers(1, values[name].ndim))]:
        start = data.draw(st.integers(0, size - 1))
        index.append(slice(start, data.draw(st.integers(start + 1, size))))
    part = tensors.read(name, tuple(index))
    assert part.dtype == {"F32": np.float32, "BF16": BF16}[tensors.dtype(name)]
    np.testing.assert_array_equal(part.astype(np.float64), values[name][tuple(index)].astype(np.float64))


def test_values_equal_those_of_transformers(stored):
    torch = pytest.importorskip("torch")
    from transformers.integrations import finegrained_fp8, mxfp4

    tensors, _ = stored["mxfp4"]
    raw = tensors._stored
    blocks, scales = (torch.from_numpy(raw.read(f"experts.3_{part}", (slice(None),))) for part in ("blocks", "scales"))
    expected = mxfp4.convert_moe_packed_tensors(blocks, scales, dtype=torch.bfloat16)
    np.testing.assert_array_equal(tensors.read("experts.3", ()).astype(np.float32), expected.float().numpy())
    tensors, _ = stored["fp8"]
    raw = tensors._stored
    for name in tensors:
        values = torch.from_numpy(raw.read(name, (slice(None),)).view(np.uint8)).view(torch.float8_e4m3fn)
        scales = torch.from_numpy(raw.read(f"{name}_scale_inv", (slice(None),)))
        expected = finegrained_fp8._dequantize_fp8_weight(values, scales, list(BLOCK), torch.float32)
        np.testing.assert_array_equal(tensors.read(name, ()), expected.numpy())
        whole = values[..., :5, :], scales[..., :1, :]  # it refuses edge blocks
        if values.shape[-1] % BLOCK[1] == 0:
            expected = finegrained_fp8.Fp8Dequantize(None)._dequantize_one(*whole)
            np.testing.assert_array_equal(tensors.read(name, ())[..., :5, :], expected.numpy())


def test_a_conversion_keeps_the_values_and_the_note(folder, tmp_path, max_difference):
    stored_fp8(np.random.default_rng(0), folder, None)
    source, out = open_checkpoint(folder.write()), tmp_path / "out"
    note = "weights are stored as FP8 with a scale for each matrix and are dequantised; activations are not quantised"
    convert(source, out)
    converted = open_checkpoint(str(out))
    assert source.notes == converted.notes == (note,)
    assert source.fingerprint() == converted.fingerprint()
    assert max_difference(jaxtrace.load(str(folder.path)), jaxtrace.load(str(out))) == 0
    for place in (folder.path, out):
        done = run_command("info", place)
        assert " ".join(done.out.split()).count("FP8 with a scale for each matrix, dequantised as it is read") == 1
        assert note in " ".join(done.err.split())


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"scale_fmt": "log"}, "quantization_config: scale_fmt is log; it must be 'float' or 'ue8m0'"),
        ({"fmt": "e5m2"}, "quantization_config: fmt is e5m2"),
        ({"expert_dtype": "fp4"}, "quantization_config: expert_dtype is fp4"),
        ({"activation_scheme": "token"}, "quantization_config: activation_scheme is token"),
        ({"weight_block_size": [128]}, "quantization_config: weight_block_size"),
        ({"weight_block_size": [0, 128]}, "quantization_config: weight_block_size"),
        ({"weight_block_size": 128}, "quantization_config: weight_block_size is 128"),
        ({"kv_cache_scheme": {"num_bits": 8}}, "quantization_config: kv_cache_scheme: no such setting"),
    ],
    ids=str,
)
def test_unknown_settings_of_fp8_are_refused(folder, settings, problem):
    folder.config["quantization_config"] = {"quant_method": "fp8"} | settings
    refused(folder, problem, "use the unquantised checkpoint, or a GGUF file of it")


def without(*names):
    return lambda weights: [weights.pop(name) for name in names]


def having(name, array):
    return lambda weights: weights.update({name: array})


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (without(SCALE), f"{SCALE} is missing"),
        (without(QUERY), f"{SCALE} is a scale of no such weight"),
        (having(QUERY, np.zeros((8, 8), np.float32)), f"{SCALE} is a scale of no such weight"),
        (
            having(QUERY, np.zeros((8, 8), ml_dtypes.float8_e5m2)),
            f"{QUERY} is F8_E5M2 of shape [8, 8], not F8_E4M3",
        ),
        (
            having(SCALE, np.ones((3, 2), np.float32)),
            f"{SCALE} is F32 of shape [3, 2], not F32",
        ),
        (
            having(SCALE, np.ones((), np.float32)),
            "is F32 of shape [], not F32, F16, BF16, F8_E8M0, U8 of shape [2, 3]",
        ),
        (having(SCALE, np.ones((2, 3), np.int32)), f"{SCALE} is I32 of shape [2, 3], not F32"),
        (
            having("model.norm.weight", np.zeros(8, E4M3)),
            "norm.weight is F8_E4M3 of shape [8], not F8_E4M3 of two or more axes",
        ),
        (having(f"{QUERY}.qweight", np.zeros(8, np.int32)), f"is quantised ({QUERY}.qweight, stored as I32)"),
        (having("lm_head.weight_scale", np.ones(())), "is quantised (lm_head.weight_scale, stored as F64)"),
        (having("lm_head.activation_scale", np.ones(())), "unknown: lm_head.activation_scale"),
        (having("lm_head.weight", np.ones((13, 8), np.int8)), "is quantised (lm_head.weight, stored as I8)"),
    ],
)
def test_fp8_weights_in_blocks_that_do_not_fit_are_refused(folder, change, problem):
    stored_fp8(np.random.default_rng(0), folder, BLOCK)
    change(folder.weights)
    refused(folder, problem)


@pytest.mark.parametrize("scale", [np.ones((8, 1), np.float32), np.ones(8, np.float32), np.ones((), np.int32)], ids=str)
def test_other_scales_of_a_matrix_than_one_are_refused(folder, scale):
    stored_fp8(np.random.default_rng(0), folder, None)
    folder.weights |= {SCALE: scale, "odd.weight": np.zeros((0, 8), E4M3)}
    refused(folder, f"of shape {list(scale.shape)}, not F32", "odd.weight_scale_inv is missing")


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (without(SCALES), f"{SCALES} is missing"),
        (without(BLOCKS), f"{SCALES} is a scale of no such weight"),
        (having(SCALES, np.zeros((32, 2), np.uint8)), f"{SCALES} is U8 of shape [32, 2], not F32"),
        (
            having(BLOCKS, np.zeros((32, 1, 15), np.uint8)),
            f"{BLOCKS} is U8 of shape [32, 1, 15]",
        ),
        (
            having(BLOCKS, np.zeros((32, 16), np.uint8)),
            f"{BLOCKS} is U8 of shape [32, 16], not U8 of",
        ),
        (having(BLOCKS, np.zeros(7, np.uint8)), f"{BLOCKS} is U8 of shape [7], not U8 of"),
        (
            having(BLOCKS, np.zeros((32, 1, 16), np.int8)),
            f"{BLOCKS} is I8 of shape [32, 1, 16]",
        ),
        (having(QUERY, np.zeros((32, 32), np.float32)), f"stored twice: {QUERY} and {QUERY}"),
    ],
)
def test_mxfp4_weights_that_do_not_fit_are_refused(folder_of, change, problem):
    folder = folder_of(WIDE)
    stored_mxfp4(np.random.default_rng(0), folder)
    change(folder.weights)
    refused(folder, problem)


def refused(folder, *parts):
    """Assert that loading fails in one line that names the checkpoint and contains all parts."""
    with pytest.raises(CheckpointError) as error:
        jaxtrace.load(folder.write())
    message = str(error.value)
    assert message.startswith(f"{folder.path}: ") and "\n" not in message
    for part in parts:
        assert part in message


def test_two_different_settings_are_refused(folder):
    folder.config |= {"quantization_config": {"quant_method": "fp8"}, "quantization": {"quant_method": "mxfp4"}}
    refused(folder, "is quantised in two ways (FP8 in blocks of 128 × 128; MXFP4)")


def test_ignored_settings_leave_the_weights_quantised(folder):
    stored_fp8(np.random.default_rng(0), folder, BLOCK)
    with pytest.raises(CheckpointError, match=r"is quantised \(model.*, stored as F8_E4M3\); use the unquantised"):
        jaxtrace.load(folder.write(), ignore_config=["quantization_config"])
