"""GGUF files: their weights and configs are those of the checkpoints that they were made from."""

import json
import os
import random
import sys
import time
import tracemalloc

import gguf
import jax
import numpy as np
import pytest

import jaxtrace
from jaxtrace.checkpoints.convert import convert
from jaxtrace.checkpoints.gguf import tensors as gguf_tensors
from jaxtrace.checkpoints.gguf.files import open_gguf
from jaxtrace.checkpoints.gguf.tensors import GgufTensors, TensorView
from jaxtrace.checkpoints.huggingface import open_checkpoint, read_config, read_shape
from jaxtrace.errors import CheckpointError, ConfigError
from jaxtrace.models.families import FAMILIES
from jaxtrace.models.rope import inverse_frequencies
from tests.checkpoints.conftest import CONFIG, Folder, random_weights
from tests.checkpoints.gguf_cases import CASES, LONGROPE
from tests.checkpoints.gguf_files import permute, write_gguf
from tests.reliability.mutators import mutated

LENGTHS = ("short", "long")


def made(path, config):
    """A checkpoint of random weights, norms and biases included."""
    folder, rng = Folder(path / "tiny", config), np.random.default_rng(0)
    for name, values in folder.weights.items():
        folder.weights[name] = rng.standard_normal(values.shape).astype(np.float32)
    folder.write()
    return folder


def parameters(checkpoint):
    return [np.asarray(x) for x in jax.tree.leaves(checkpoint.read(np.float32))]


def refused(path, *words):
    with pytest.raises((CheckpointError, ConfigError)) as caught:
        jaxtrace.load(str(path))
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message, message


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A checkpoint and the bytes of its GGUF file."""
    folder = made(tmp_path_factory.mktemp("gguf"), CONFIG)
    return folder, write_gguf(folder.path.parent / "tiny.gguf", CONFIG, folder.weights).read_bytes()


@pytest.mark.parametrize("case", CASES)
def test_a_gguf_file_is_read_as_the_checkpoint_it_was_made_from(case, tmp_path):
    config, metadata = CASES[case]
    folder, tensors = made(tmp_path, config), {}
    if "longrope" in case:
        tensors = {f"rope_factors_{length}.weight": np.float32(LONGROPE[f"{length}_factor"]) for length in LENGTHS}
    elif "gemma4" in case:
        tensors = {"rope_freqs.weight": np.float32([1, 1e30, 1e30, 1e30])}
    file = write_gguf(tmp_path / "tiny.gguf", config, folder.weights, metadata=metadata, tensors=tensors)
    stored, expected = open_checkpoint(str(file)), open_checkpoint(str(folder.path))
    assert stored.config == expected.config and stored.notes == () and stored.tokenizer is None
    for one, other in zip(parameters(stored), parameters(expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=3e-7 if case in ("gemma2", "gemma3") else 0)


def test_q_and_k_are_stored_in_the_order_in_which_llama_cpp_rotates(tiny, tmp_path):
    folder, content = tiny
    (tmp_path / "tiny.gguf").write_bytes(content)
    model = open_gguf(tmp_path / "tiny.gguf")
    place = model.tensors["blk.1.attn_q.weight"]
    stored = np.frombuffer(content, np.float32, 64, place.offset).reshape(place.shape)
    np.testing.assert_array_equal(stored, permute(folder.weights["model.layers.1.self_attn.q_proj.weight"], 2))
    np.testing.assert_array_equal(stored[1], folder.weights["model.layers.1.self_attn.q_proj.weight"][2])


KINDS = [kind for kind in gguf.GGMLQuantizationType if kind in gguf.quants._type_traits]


def random_blocks(kind, shape, rng):
    """Bytes of random blocks whose scales are finite."""
    block, size = gguf.GGML_QUANT_SIZES[kind]
    while True:
        content = rng.integers(0, 256, (*shape[:-1], shape[-1] // block, size), np.uint8)
        content[..., 1::2] &= 0x3F  # half-precision scales stay below infinity
        rows = content.reshape(*shape[:-1], -1)
        with np.errstate(all="ignore"):
            if np.isfinite(gguf.dequantize(rows, kind)).all():
                return rows


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_part_of_a_quantised_tensor_equals_a_cut_of_the_whole(kind, tmp_path, rng, monkeypatch):
    monkeypatch.setattr(gguf_tensors, "CHUNK", 4 * 512 * 3)  # three rows at a time
    content = random_blocks(kind, (10, 512), rng)
    writer = gguf.GGUFWriter(tmp_path / "one.gguf", "llama")
    writer.add_tensor("x", content, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    stored = open_gguf(tmp_path / "one.gguf").tensors["x"]
    assert stored.shape == (10, 512) and stored.dtype == ("BF16" if kind.name == "BF16" else "F32")
    mapped, whole = np.memmap(tmp_path / "one.gguf", np.uint8, "r"), gguf.dequantize(content, kind)
    order = rng.permutation(10)
    for index in ((), (slice(2, 9),), (slice(3, 4), slice(70, 333)), (slice(0, 10), slice(256, 512)), (slice(4, 4),)):
        part = TensorView(stored).read(mapped, gguf, index)
        np.testing.assert_array_equal(part.astype(np.float32), whole[index])
        permuted = TensorView(stored, rows=order).read(mapped, gguf, index)
        np.testing.assert_array_equal(permuted.astype(np.float32), whole[order][index])
        turned = TensorView(stored, transposed=True).read(mapped, gguf, index[::-1])
        np.testing.assert_array_equal(turned.astype(np.float32), whole[index].T if len(index) != 1 else whole.T[index])


def test_only_the_rows_of_a_part_are_dequantised_and_memory_is_bounded(tmp_path, monkeypatch):
    config = CONFIG | {"hidden_size": 256, "intermediate_size": 4096, "num_attention_heads": 2, "num_hidden_layers": 1}
    folder = made(tmp_path, config)
    kinds = {f"blk.0.ffn_{x}.weight": "Q8_0" for x in ("gate", "up", "down")}
    file = write_gguf(tmp_path / "tiny.gguf", config, folder.weights, kinds=kinds)
    monkeypatch.setattr(gguf_tensors, "CHUNK", 2**18)
    sizes, dequantize = [], gguf.quants.dequantize

    def counted(data, kind):
        values = dequantize(data, kind)
        sizes.append(values.nbytes)
        return values

    monkeypatch.setattr(gguf.quants, "dequantize", counted)
    with GgufTensors(open_gguf(file), open_checkpoint(str(file)).config) as tensors:
        name = "model.layers.0.mlp.up_proj.weight"
        assert tensors.dtype(name) == "F32" and tensors.shape(name) == (4096, 256)
        sizes.clear()
        part = tensors.read(name, (slice(100, 200), slice(0, 40)))
        assert part.shape == (100, 40) and sum(sizes) == 100 * 64 * 4  # two blocks of 32 columns
        tensors.read(name, (slice(0, 1), slice(0, 1)))
        sizes.clear()
        tracemalloc.start()
        whole = tensors.read(name, (slice(None), slice(None)))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert max(sizes) <= 2**18 and sum(sizes) == whole.nbytes == 4 * 2**20
    assert peak < whole.nbytes + 8 * 2**18


def test_half_precision_is_kept(tmp_path):
    folder = made(tmp_path, CONFIG)
    kinds = {"blk.0.ffn_up.weight": "BF16", "blk.0.ffn_down.weight": "F16"}
    file = write_gguf(tmp_path / "tiny.gguf", CONFIG, folder.weights, kinds=kinds)
    with open_checkpoint(str(file)).weights() as weights:
        dtypes = [str(weights.dtype(("layers", 0, "feed_forward", x))) for x in ("up", "down", "gate")]
    assert dtypes == ["bfloat16", "float16", "float32"]


def split(folder, count):
    """Write a model in parts and return them."""
    names = sorted(folder.weights)
    parts = []
    for number in range(count):
        place = {"split.no": number, "split.count": count, "split.tensors.count": len(names)}
        entries = place if number == 0 else place | {f"{{arch}}.{key}": None for key in KEYS}
        path = folder.path.parent / f"tiny-{number + 1:05}-of-{count:05}.gguf"
        weights = {name: folder.weights[name] for name in names[number::count]}
        parts.append(write_gguf(path, folder.config, weights, metadata=entries))
    return parts


KEYS = ("context_length", "embedding_length", "block_count", "feed_forward_length", "attention.head_count")


def test_a_split_model_is_opened_by_any_part(tmp_path):
    folder = made(tmp_path, CONFIG)
    parts = split(folder, 3)
    expected = parameters(open_checkpoint(str(folder.path)))
    checkpoints = [open_checkpoint(str(path)) for path in parts]
    assert len({checkpoint.fingerprint() for checkpoint in checkpoints}) == 1 and len(checkpoints[0].digests) == 3
    for one, other in zip(parameters(checkpoints[2]), expected, strict=True):
        np.testing.assert_array_equal(one, other)
    content = parts[1].read_bytes()
    parts[1].write_bytes(content[:-4] + b"\x00\x00\x80\x3f")  # another number at the end
    assert open_checkpoint(str(parts[0])).fingerprint() != checkpoints[0].fingerprint()
    parts[1].write_bytes(parts[2].read_bytes())
    refused(parts[0], parts[1].name, "says that it is part 2 of 3, counted from 0, and is read as part 1 of 3")
    parts[1].unlink()
    refused(parts[0], "parts of a split model are missing: tiny-00002-of-00003.gguf")
    parts[2].rename(tmp_path / "renamed.gguf")
    refused(tmp_path / "renamed.gguf", "restore the names of the parts (NAME-00001-of-00003.gguf)")


def test_a_directory_with_one_gguf_model_is_that_model(tmp_path):
    folder = made(tmp_path, CONFIG)
    home = tmp_path / "home"
    home.mkdir()
    file = write_gguf(home / "tiny.GGUF", CONFIG, folder.weights)
    (home / "mmproj-model-f16.gguf").write_bytes(b"GGUF")
    (home / "config.json").write_text("{}")  # some repositories have one
    assert open_checkpoint(str(home)).fingerprint() == open_checkpoint(str(file)).fingerprint()
    assert read_config(home, "it")[1] == read_config(folder.path, "it")[1]
    (home / "other.gguf").write_bytes(file.read_bytes())
    refused(home, "holds several GGUF models (other.gguf, tiny.GGUF); give the path of one")
    for path in folder.path.iterdir():
        path.rename(home / path.name)
    assert open_checkpoint(str(home)).conversion is None and len(parameters(open_checkpoint(str(home)))) > 0
    assert open_checkpoint(str(home)).digests != open_checkpoint(str(file)).digests


def test_a_conversion_of_gguf_opens_like_any_other(tiny, tmp_path):
    (tmp_path / "tiny.gguf").write_bytes(tiny[1])
    source = open_checkpoint(str(tmp_path / "tiny.gguf"))
    convert(source, tmp_path / "out")
    converted = open_checkpoint(str(tmp_path / "out"))
    assert json.loads((tmp_path / "out" / "config.json").read_text())["model_type"] == "llama"
    assert (converted.config, converted.fingerprint()) == (source.config, source.fingerprint())
    for one, other in zip(parameters(converted), parameters(source), strict=True):
        np.testing.assert_array_equal(one, other)


TOKENS = [*"abcdefghij", "ab", "</s>", "<|im_end|>"]
TOKENIZER = {
    "tokenizer.ggml.model": "gpt2",
    "tokenizer.ggml.pre": "gpt-2",
    "tokenizer.ggml.tokens": TOKENS,
    "tokenizer.ggml.token_type": [1] * 11 + [3] * 2,
    "tokenizer.ggml.merges": ["a b"],
    "tokenizer.ggml.eos_token_id": 11,
    "tokenizer.chat_template": "{% for m in messages %}{{ m.content }}<|im_end|>{% endfor %}",
}


def test_the_tokenizer_of_the_file_is_used_and_is_converted(tiny, tmp_path):
    file = write_gguf(tmp_path / "tiny.gguf", CONFIG, tiny[0].weights, metadata=TOKENIZER)
    stored = open_checkpoint(str(file))
    convert(stored, tmp_path / "out")
    for checkpoint in (stored, open_checkpoint(str(tmp_path / "out"))):
        assert checkpoint.stop_tokens == (11, 12)
        assert checkpoint.tokenizer.encode("abc", chat=False) == [10, 2]
        assert checkpoint.tokenizer.encode("abc", chat=True) == [10, 2, 12]
    unknown = TOKENIZER | {"tokenizer.ggml.pre": "new"}
    refused(write_gguf(file, CONFIG, tiny[0].weights, metadata=unknown), "tokenizer.ggml.pre is 'new'")


def test_a_file_is_read_by_itself_whatever_lies_beside_it(tiny, tmp_path):
    other = {name: values + 1 for name, values in tiny[0].weights.items()}
    convert(open_checkpoint(str(tiny[0].path)), tmp_path / "home")
    (tmp_path / "home" / "quantize_config.json").write_text("{}")
    file = write_gguf(tmp_path / "home" / "tiny.gguf", CONFIG, other)
    checkpoint = open_checkpoint(str(file))
    assert checkpoint.conversion is None and checkpoint.quantisation is None
    name = write_gguf(tmp_path / "sha256-0f", CONFIG, other)  # the cache of Ollama
    expected = parameters(open_checkpoint(str(name)))
    assert all(np.array_equal(one, two) for one, two in zip(parameters(checkpoint), expected, strict=True))
    assert jaxtrace.load(str(name), random=True).config == checkpoint.config == read_shape(name, "it")


def test_files_that_hold_no_model_are_no_models_of_a_directory(tiny, tmp_path):
    (tmp_path / "tiny.gguf").write_bytes(tiny[1])
    for name in ("._tiny.gguf", "imatrix_unsloth.gguf", "mmproj-F16.gguf"):
        (tmp_path / name).write_bytes(b"GGUF")
    (tmp_path / "folder.gguf").mkdir()
    (tmp_path / "gone.gguf").symlink_to("nowhere")
    assert open_checkpoint(str(tmp_path)).files.weight_files() == [tmp_path / "tiny.gguf"]
    for name in ("x-00001-of-00002.gguf", "x-00001-of-00003.gguf"):
        (tmp_path / name).touch()
    refused(tmp_path, "several GGUF models (tiny.gguf, x-00001-of-00002.gguf, x-00001-of-00003.gguf)")


def test_a_file_that_llama_cpp_merged_from_parts_is_one_file(tiny, tmp_path):
    entries = {"split.no": 0, "split.count": 0, "split.tensors.count": len(tiny[0].weights)}
    file = write_gguf(tmp_path / "tiny.gguf", CONFIG, tiny[0].weights, metadata=entries)
    assert open_checkpoint(str(file)).config == open_checkpoint(str(tiny[0].path)).config
    refused(file.rename(tmp_path / "tiny-00001-of-00001.gguf").rename(tmp_path / "tiny-00001-of-00002.gguf"), "missing")


@pytest.mark.parametrize("change", ["longer", "shorter", "gone"])
def test_a_file_that_changes_after_its_header_was_read_is_refused(change, tiny, tmp_path):
    file = tmp_path / "tiny.gguf"
    file.write_bytes(tiny[1])
    checkpoint = open_checkpoint(str(file))
    file.unlink()
    if change != "gone":
        file.write_bytes(tiny[1] + b"\0" if change == "longer" else tiny[1][:-400])
    with pytest.raises(CheckpointError, match="cannot be read" if change == "gone" else "changed while it was being"):
        checkpoint.read(np.float32)


def test_a_file_that_is_not_there_is_named(tmp_path):
    refused(tmp_path / "gone.gguf", "gone.gguf: no such file")
    refused("models/gone.gguf", "models/gone.gguf: no such file")


def test_random_weights_need_only_the_metadata(tiny, tmp_path):
    (tmp_path / "tiny.gguf").write_bytes(tiny[1])
    model = jaxtrace.load(str(tmp_path / "tiny.gguf"), random=True)
    assert model.config == open_checkpoint(str(tmp_path / "tiny.gguf")).config


def test_a_missing_reader_is_named(tiny, tmp_path, monkeypatch):
    (tmp_path / "tiny.gguf").write_bytes(tiny[1])
    monkeypatch.setitem(sys.modules, "gguf", None)
    refused(tmp_path / "tiny.gguf", "is GGUF, and its reader is not installed; pip install 'jaxtrace[gguf]'")


REFUSED = {
    "experts": ({"{arch}.expert_count": 8}, "has llama.expert_count=8 and no routers (ffn_gate_inp)"),
    "adapter": ({"general.type": "adapter"}, "holds 'adapter' instead of a model"),
    "architecture": ({"general.architecture": None}, "names no general.architecture"),
    "no size": ({"{arch}.block_count": None}, "has no llama.block_count"),
    "wrong size": ({"{arch}.block_count": "two"}, "llama.block_count='two', which must be a positive whole number"),
    "other sizes": ({"{arch}.attention.head_count": [2, 1]}, "llama.attention.head_count=[2, 1]"),
    "layers": ({"{arch}.block_count": 2**30}, "jaxtrace supports 10,000"),
    "more layers": ({"{arch}.block_count": 3}, "missing: model.layers.2."),
    "values": ({"{arch}.attention.value_length": 6}, "has keys of width 4 and values of width 6"),
    "not causal": ({"{arch}.attention.causal": False}, "has attention in both directions"),
    "not causal, as a number": ({"{arch}.attention.causal": 0}, "has attention in both directions"),
    "unknown": ({"{arch}.logit_scale": 0.5}, "llama.logit_scale=0.5"),
    "rope": ({"{arch}.rope.scaling.type": "longrope"}, "has rope scaling 'longrope', without its factors"),
    "epsilon": ({"{arch}.attention.layer_norm_rms_epsilon": float("nan")}, "which must be a positive number"),
    "vocabulary": ({"{arch}.vocab_size": 12}, "model.embed_tokens.weight has shape [13, 8], not [12, 8]"),
    "alignment": ({"general.alignment": 33}, "general.alignment=33, which must be a power of two"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_metadata_that_is_not_understood_is_refused(case, tiny, tmp_path):
    metadata, words = REFUSED[case]
    if case == "architecture":
        content = tiny[1].replace(b"general.architecture", b"general.architectura")
        (tmp_path / "tiny.gguf").write_bytes(content)
    else:
        write_gguf(tmp_path / "tiny.gguf", CONFIG, tiny[0].weights, metadata=metadata)
    refused(tmp_path / "tiny.gguf", words, "tiny.gguf: ")


@pytest.mark.parametrize("name", ["clip", "qwen3moe", "mamba"])
def test_another_architecture_is_named(name, tmp_path):
    writer = gguf.GGUFWriter(tmp_path / "tiny.gguf", name)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    refused(tmp_path / "tiny.gguf", name)


def test_zero_means_off_and_unknown_tensors_are_refused(tiny, tmp_path):
    off = {"{arch}.expert_count": 0, "{arch}.attention.sliding_window": 0, "{arch}.attention.scale": 0.0}
    off |= {"general.name": "Tiny", "quantize.imatrix.file": "imatrix.dat", "{arch}.feed_forward_length": [12, 12]}
    file = write_gguf(tmp_path / "tiny.gguf", CONFIG, tiny[0].weights, metadata=off)
    assert open_checkpoint(str(file)).config == open_checkpoint(str(tiny[0].path)).config
    extra = {"blk.0.attn_sinks.weight": np.ones(2, np.float32)}
    refused(write_gguf(file, CONFIG, tiny[0].weights, tensors=extra), "unknown: blk.0.attn_sinks.weight")


def changed(content, before, *fields):
    """Replace the bytes after the first occurrence of a text."""
    at = content.index(before) + len(before)
    new = b"".join(fields)
    return content[:at] + new + content[at + len(new) :]


U32, U64 = (lambda x: x.to_bytes(4, "little")), (lambda x: x.to_bytes(8, "little"))
NORM = b"output_norm.weight"  # a vector, followed by: dimensions, size, type, offset
DAMAGE = {
    "empty": (lambda content: b"", "does not begin with GGUF"),
    "other": (lambda content: b"PK\x03\x04" + content, "does not begin with GGUF"),
    "version": (lambda content: changed(content, b"GGUF", U32(1)), "has GGUF version 1, and jaxtrace reads 2 and 3"),
    "big-endian": (lambda content: changed(content, b"GGUF", b"\0\0\0\3"), "is a big-endian file"),
    "tensors": (lambda content: changed(content, b"GGUF\3\0\0\0", U64(2**60)), "has 1,152,921,504,606,846,976 tensors"),
    "entries": (lambda content: changed(content, b"GGUF\3\0\0\0", U64(5), U64(2**63)), "metadata entries; download"),
    "text": (lambda content: changed(content, b"general.architecture\x08\0\0\0", U64(2**62)), "cut off in its header"),
    "kind of value": (lambda content: changed(content, b"llama.block_count", U32(77)), "with the unknown type 77"),
    "list": (lambda content: changed(content, b"llama.block_count", U32(9), U32(4), U64(2**61)), "entries"),
    "nested list": (lambda content: changed(content, b"llama.block_count", U32(9), U32(9), U64(1)), "unknown type 9"),
    "dimensions": (lambda content: changed(content, NORM, U32(10**9)), "has 1000000000 dimensions"),
    "no dimension": (lambda content: changed(content, NORM, U32(0)), "has 0 dimensions"),
    "size": (lambda content: changed(content, NORM, U32(1), U64(2**63)), "is cut off"),
    "no row": (lambda content: changed(content, NORM, U32(1), U64(0)), "the shape [0], impossible for F32"),
    "type": (lambda content: changed(content, NORM, U32(1), U64(8), U32(99)), "the type number 99, which the library"),
    "quantised type": (lambda content: changed(content, NORM, U32(1), U64(8), U32(9)), "with the type Q8_1"),
    "blocks": (lambda content: changed(content, NORM, U32(1), U64(8), U32(8)), "impossible for Q8_0"),
    "offset": (lambda content: changed(content, NORM, U32(1), U64(8), U32(0), U64(2**40)), "begins at byte"),
    "overlap": (lambda content: changed(content, NORM, U32(1), U64(8), U32(0), U64(0)), "begins at byte 0, not"),
    "integers": (lambda content: changed(content, NORM, U32(1), U64(8), U32(26)), "stored as I32"),
    "name": (lambda content: content.replace(NORM, b"blk.0.ffn_up.weigh", 1), "blk.0.ffn_up.weigh"),
    "same name": (lambda content: content.replace(b"blk.1.ffn_up", b"blk.0.ffn_up", 1), "has two tensors"),
    "same key": (lambda content: content.replace(b"block_count", b"head_count\0", 1), "tiny.gguf: "),
    "encoding": (lambda content: content.replace(NORM, b"\xff" * 18, 1), "which is not UTF-8"),
    "cut": (lambda content: content[:-1], "is cut off", "download it again"),
    "cut in the header": (lambda content: content[:300], "is cut off in its header"),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_a_damaged_file_gets_one_line(case, tiny, tmp_path):
    damage, *words = DAMAGE[case]
    (tmp_path / "tiny.gguf").write_bytes(damage(tiny[1]))
    refused(tmp_path / "tiny.gguf", *words)


def test_a_named_pipe_and_a_directory_are_no_gguf_files(tmp_path):
    os.mkfifo(tmp_path / "pipe.gguf")
    refused(tmp_path / "pipe.gguf", "pipe.gguf: cannot be read (Not a regular file)")
    (tmp_path / "folder.gguf").mkdir()
    refused(tmp_path / "folder.gguf", "holds no config.json")


def opened_or_refused(content, path):
    path.write_bytes(content)
    start = time.monotonic()
    try:
        parameters(open_checkpoint(str(path)))
    except (CheckpointError, ConfigError) as error:
        assert "\n" not in str(error)
    assert time.monotonic() - start < 5


def test_mutated_headers_are_read_or_refused(tiny, tmp_path):
    chance, end = random.Random(0), tiny[1].index(b"output_norm.weight") + 60
    for _ in range(120):
        opened_or_refused(mutated(tiny[1][:end], chance) + tiny[1][end:], tmp_path / "tiny.gguf")


@pytest.mark.nightly
@pytest.mark.parametrize("seed", range(6))
def test_many_mutated_files_are_read_or_refused(seed, tiny, tmp_path):
    chance, end = random.Random(f"many {seed}"), tiny[1].index(b"output_norm.weight") + 60
    for _ in range(1000):
        content = mutated(tiny[1][:end], chance) + tiny[1][end:] if chance.random() < 0.8 else mutated(tiny[1], chance)
        opened_or_refused(content, tmp_path / "tiny.gguf")


LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
LLAMA3 |= {"original_max_position_embeddings": 8192}
SCALINGS = {
    "llama3": (LLAMA3, {}),
    "yarn": (
        {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32, "beta_fast": 24.0},
        {"type": "yarn", "factor": 4.0, "original_context_length": 32, "yarn_beta_fast": 24.0},
    ),
    "yarn with its own attention factor": (
        {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32, "attention_factor": 1.25},
        {"type": "yarn", "factor": 4.0, "original_context_length": 32, "yarn_attn_factor": 1.25},
    ),
    "longrope": (
        {"rope_type": "longrope", "short_factor": [1.0] * 7 + [1.5], "long_factor": [2.0] * 8}
        | {"original_max_position_embeddings": 32, "attention_factor": 1.1},
        {"type": "longrope", "original_context_length": 32, "attn_factor": 1.1},
    ),
    "none": (None, {"type": "none", "factor": 8.0}),
    "linear, in the old form": ({"rope_type": "linear", "factor": 2.0}, {"scale": 2.0}),
}


@pytest.mark.parametrize("case", SCALINGS)
def test_the_scaling_of_rotary_positions_is_restored(case, tmp_path):
    scaling, entries = SCALINGS[case]
    config = CONFIG | {"head_dim": 16, "max_position_embeddings": 128, "rope_theta": 500_000.0, "rope_scaling": scaling}
    metadata = {f"{{arch}}.rope.scaling.{key}": value for key, value in entries.items() if key != "scale"}
    metadata |= {"{arch}.rope.scale_linear": entries["scale"]} if "scale" in entries else {}
    expected = FAMILIES["llama"].decoder_config(config, "it")
    tensors = {}
    if case == "llama3":
        unscaled = 500_000.0 ** (-np.arange(0, 16, 2, dtype=np.float32) / 16)
        scaled = np.asarray(inverse_frequencies(expected.pattern[0].rope, 16, np.array([8])))
        tensors["rope_freqs.weight"] = np.float32(unscaled / scaled)
    elif case == "longrope":
        for name in LENGTHS:
            tensors[f"rope_factors_{name}.weight"] = np.float32(scaling[f"{name}_factor"])
    weights = random_weights(json.dumps(config))
    file = write_gguf(tmp_path / "tiny.gguf", config, weights, metadata=metadata, tensors=tensors)
    read = open_checkpoint(str(file)).config
    if case != "llama3":
        assert read == expected
        return
    for length in (8, 10_000):
        frequencies = inverse_frequencies(read.pattern[0].rope, 16, np.array([length]))
        np.testing.assert_allclose(np.asarray(frequencies)[0], scaled, rtol=3e-7)
    assert read.pattern[0].rope.scaling.attention_factor == 1


def test_factors_of_another_size_or_with_another_scaling_are_refused(tiny, tmp_path):
    file, weights = tmp_path / "tiny.gguf", tiny[0].weights
    factors = {"rope_freqs.weight": np.ones(3, np.float32)}
    refused(write_gguf(file, CONFIG, weights, tensors=factors), "rope_freqs.weight has shape [3] and type F32, not [2]")
    factors = {"rope_freqs.weight": np.ones(2, np.float32)}
    for entries in ({"type": "yarn", "factor": 2.0}, {"factor": 2.0}):
        metadata = {f"{{arch}}.rope.scaling.{key}": value for key, value in entries.items()}
        refused(write_gguf(file, CONFIG, weights, metadata=metadata, tensors=factors), "the factors rope_freqs.weight")
    shrunk = {"{arch}.rope.scaling.type": "yarn", "{arch}.rope.scaling.factor": 0.5}
    refused(write_gguf(file, CONFIG, weights, metadata=shrunk), "factor=0.5, which must be at least 1")
    factors = {"rope_freqs.weight": np.zeros(2, np.float32)}
    refused(write_gguf(file, CONFIG, weights, tensors=factors), "must be a positive number")
