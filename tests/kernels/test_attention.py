"""prefill_attention and decode_attention: every implementation against the oracle, and each other."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtrace.kernels import Chunk, Unsupported, decode_attention, prefill_attention
from jaxtrace.kernels.decode_attention.api import OPERATION as DECODE
from jaxtrace.kernels.prefill_attention import xla
from jaxtrace.kernels.prefill_attention.api import OPERATION as PREFILL

from tests import oracle

from . import cases

BOUNDS = {
    "entropy": ("attention_entropy", cases.ENTROPY),
    "entropy_normalized": ("attention_entropy_normalized", cases.ENTROPY),
    "varentropy": ("attention_varentropy", cases.VARENTROPY),
    "entropy_no_sink": ("attention_entropy_no_sink", cases.ENTROPY),
    **{
        name: (name, cases.PROBABILITY)
        for name in ("sink_mass", "attention_self", "attention_previous", "attention_prompt_mass", "attention_max")
    },
}
OUTPUT = {"float32": 1e-5, "bfloat16": 2e-2}


@dataclass(frozen=True)
class Case:
    """Shapes and options of one call; scores have standard deviation `sd`, plus `offset`."""

    start: tuple[int, ...]
    queries: int
    keys: int
    kv_heads: int
    group: int
    head_dim: int = 64
    window: int | Chunk | None = None
    soft_cap: float | None = None
    sd: float = 2.0
    offset: float = 0.0
    prompt: int | None = 4

    def arrays(self, rng, dtype):
        """Return q, k (slots last), v on a grid where, for scale 1/8, every score is exact in float32."""
        b, h = len(self.start), self.head_dim
        q = cases.on_grid(rng, (b, self.queries, self.kv_heads * self.group, h), 8 / h**0.5, 1 / 16)
        k = cases.on_grid(rng, (b, self.kv_heads, self.keys, h), self.sd, 1 / 8)
        q[..., 0], k[..., 0] = 32, self.offset / 4
        v = rng.normal(0, 1, k.shape)
        return tuple(jnp.asarray(x, dtype) for x in (q, k.swapaxes(2, 3), v))

    @property
    def options(self):
        return {"scale": 1 / 8, "window": self.window, "soft_cap": self.soft_cap}

    @property
    def prompts(self):
        """Prompt length of each row: unequal, from `prompt` on; None if every position belongs to the prompt."""
        return None if self.prompt is None else self.prompt + 20 * jnp.arange(len(self.start))

    @property
    def positions(self):
        return np.array(self.start)[:, None] + np.arange(self.queries)


# Start −1 is an empty row (length 0), start 0 sees one key. Cases that differ in their numbers only share one shape, so
# that they compile once.
PREFILL_CASES = [
    Case((0,), 1, 1, 1, 1),
    Case((-3, 0, 20), 6, 33, 2, 4, 128),
    Case((5,), 4, 130, 1, 8, 256),
    Case((0, 60), 8, 70, 2, 2, window=5),
    Case((0, 10), 8, 40, 2, 1, window=1),
    Case((3,), 8, 40, 1, 4, window=16, soft_cap=5.0, sd=6.0),
    Case((0, 90), 8, 100, 2, 2, offset=300.0),
    Case((0, 90), 8, 100, 2, 2, offset=-300.0),
    Case((0, 90), 8, 100, 2, 2, sd=20.0),
    Case((0, 90), 8, 100, 2, 2, sd=0.0),
]
DECODE_CASES = [
    Case((-1, 0, 1, 2, 126), 1, 127, 2, 1),
    Case((-1, 0, 63, 30), 1, 64, 1, 8, 128),
    Case((-1, 0, 3, 4, 63), 1, 64, 2, 2, window=4),
    Case((-1, 4, 99), 1, 100, 1, 2, soft_cap=20.0, sd=6.0),
    Case((-1, 4, 99), 1, 100, 1, 2, soft_cap=20.0, offset=300.0),
]


def check(case, q, k, v, output, moments, dtype):
    arrays = map(cases.as_oracle, (q, k.swapaxes(2, 3), v))
    want = oracle.attention(*arrays, case.positions, prompt_length=case.prompts, **case.options)
    cases.assert_near(output, want["output"], OUTPUT[dtype], "output")
    for name, (definition, bound) in BOUNDS.items():
        cases.assert_near(getattr(moments, name), want[definition], bound, name)


def prefill(implementation, case, q, k, v, **options):
    call = cases.compiled(prefill_attention, implementation=implementation, **case.options, **options)
    return cases.served(call, q, k, v, jnp.asarray(case.start, jnp.int32), prompt_length=case.prompts)


def decode(implementation, case, q, k, v, **options):
    call = cases.compiled(decode_attention, implementation=implementation, **case.options, **options)
    result = cases.served(call, q[:, 0], k, v, jnp.asarray(case.start, jnp.int32) + 1, prompt_length=case.prompts)
    return jax.tree.map(lambda x: x[:, None], result)


CASES = [(prefill, case, "float32") for case in PREFILL_CASES] + [(decode, case, "float32") for case in DECODE_CASES]
CASES += [(prefill, PREFILL_CASES[3], "bfloat16"), (decode, DECODE_CASES[1], "bfloat16")]
EACH = [(prefill, name) for name in cases.implementations(PREFILL)]
EACH += [(decode, name) for name in cases.implementations(DECODE)]
RUNS = [(*each, case, dtype) for each in EACH for attend, case, dtype in CASES if attend is each[0]]


def title(x):
    return getattr(x, "__name__", None) or str(x).removeprefix("Case")


@pytest.mark.parametrize(("attend", "implementation", "case", "dtype"), RUNS, ids=title)
def test_agrees_with_oracle(attend, implementation, case, dtype, rng):
    q, k, v = case.arrays(rng, dtype)
    output, moments = attend(implementation, case, q, k, v)
    assert output.dtype == q.dtype
    assert moments.entropy.dtype == jnp.float32
    check(case, q, k, v, output, moments, dtype)
    empty = case.positions < 0
    assert not np.asarray(output)[empty].any()
    assert not any(np.asarray(x)[empty].any() for x in jax.tree.leaves(moments))


CHUNKED = [
    (prefill, Case((-1, 60), 8, 70, 2, 2, window=Chunk(5))),
    (prefill, Case((1040,), 8, 1100, 1, 1, window=Chunk(525))),  # long enough for tiles; starts in the second chunk
    (decode, Case((-1, 0, 3, 4, 63), 1, 64, 2, 2, window=Chunk(4))),
]


@pytest.mark.parametrize(("attend", "case"), CHUNKED, ids=title)
@pytest.mark.parametrize("implementation", ["reference", "xla"])
def test_chunked_attention_agrees_with_oracle(attend, implementation, case, rng):
    q, k, v = case.arrays(rng, "float32")
    check(case, q, k, v, *attend(implementation, case, q, k, v), "float32")
    with pytest.raises(Unsupported, match="no kernel for chunked attention"):
        attend("pallas_tpu_interpret", case, q, k, v)


@pytest.mark.parametrize(("attend", "implementation"), EACH, ids=title)
class TestEachImplementation:
    def test_stays_exact_for_scores_of_sd_6_over_4096_keys(self, attend, implementation, rng):
        case = Case((4095,), 1, 4096, 2, 4)
        shapes = {"q": (6, (1, 1, 8, 64)), "k": (1, (1, 2, 64, 4096))}
        q, k = (jnp.asarray(rng.normal(0, sd, shape), jnp.float32) for sd, shape in shapes.values())
        v = jnp.ones((1, 2, 4096, 64))
        check(case, q, k, v, *attend(implementation, case, q, k, v), "float32")

    def test_stays_exact_for_one_head_of_one_row_over_4096_keys(self, attend, implementation):
        """One score is 7 above all others: this row loses most if it is added up in the wrong order."""
        case = Case((4095,), 1, 4096, 1, 1)
        k = jnp.zeros((1, 1, 64, 4096)).at[0, 0, 0, 1].set(7 * 8.0)
        v = k.swapaxes(2, 3)
        q = jnp.ones((1, 1, 1, 64))
        output, moments = attend(implementation, case, q, k, v)
        check(case, q, k, v, output, moments, "float32")

    def test_output_is_the_same_without_moments(self, attend, implementation, rng):
        case = Case((-1, 4, 19), 1, 20, 2, 2)
        arrays = case.arrays(rng, "float32")
        output, moments = attend(implementation, case, *arrays, moments=False)
        assert moments is None
        cases.assert_near(output, attend(implementation, case, *arrays)[0], 1e-6, "output")

    def test_slots_beyond_the_length_are_ignored(self, attend, implementation, rng):
        case = Case((-1, 4, 9), 1, 20, 2, 2)
        q, k, v = case.arrays(rng, "float32")
        beyond = (jnp.arange(20) > jnp.asarray(case.start)[:, None])[:, None, None]
        clean = attend(implementation, case, q, k, v)
        dirty_v = jnp.where(beyond.swapaxes(2, 3), -3e4, v)
        dirty = attend(implementation, case, q, jnp.where(beyond, 3e4, k), dirty_v)
        jax.tree.map(np.testing.assert_array_equal, clean, dirty)

    def test_rows_are_independent_of_their_batch(self, attend, implementation, rng):
        case = Case((-1, 4, 19), 1, 20, 2, 2)
        q, k, v = case.arrays(rng, "float32")
        together = attend(implementation, case, q, k, v)
        for b, start in enumerate(case.start):
            row = slice(b, b + 1)
            alone = attend(implementation, Case((start,), 1, 20, 2, 2, prompt=4 + 20 * b), q[row], k[row], v[row])
            for x, y in zip(jax.tree.leaves(alone), jax.tree.leaves(together), strict=True):
                cases.assert_near(x, y[row], 1e-5, "row alone")


SINKS = (0.0, 3.0, -2.0, 200.0)  # the last takes all


@pytest.mark.parametrize(("attend", "implementation"), EACH, ids=title)
def test_a_learned_sink_takes_its_share_of_the_output(attend, implementation, rng):
    case = Case((-1, 0, 16), 1 if attend is decode else 4, 20, 2, 2, window=7)
    check_learned_sink(case, rng, implementation, attend is decode, moments=False)


@pytest.mark.parametrize(("attend", "offset"), [(prefill, 300.0), (decode, -300.0)], ids=title)
def test_the_moments_beside_a_learned_sink_are_over_the_keys_alone(attend, offset, rng):
    case = Case((-1, 0, 16), 1 if attend is decode else 4, 20, 2, 2, offset=offset)
    check_learned_sink(case, rng, "xla", attend is decode, offset)


def check_learned_sink(case, rng, implementation, decodes, offset=0.0, **options):
    """Compare attention beside learned sinks, of about the size of the scores, with the oracle."""
    q, k, v = case.arrays(rng, "float32")
    sinks, options = np.float32(SINKS) + np.float32(offset), case.options | options | {"implementation": implementation}
    start, by_row = jnp.asarray(case.start, jnp.int32), {"learned_sink": sinks, "prompt_length": case.prompts}
    if decodes:
        result = cases.compiled(decode_attention, **options)(q[:, 0], k, v, start + 1, **by_row)
        output, moments = jax.tree.map(lambda x: x[:, None], result)
    else:
        output, moments = cases.compiled(prefill_attention, **options)(q, k, v, start, **by_row)
    arrays = map(cases.as_oracle, (q, k.swapaxes(2, 3), v))
    want = oracle.attention(*arrays, case.positions, **by_row, **case.options)
    cases.assert_near(output, want["output"], 2e-5, "output")
    if moments is not None:
        cases.assert_near(moments.learned_sink_mass, want["learned_sink_mass"], 2e-5, "learned_sink_mass")
        for name, (definition, bound) in BOUNDS.items():
            cases.assert_near(getattr(moments, name), want[definition], bound, name)


@pytest.mark.parametrize("implementation", cases.implementations(PREFILL))
def test_decode_repeats_prefill_step_by_step(implementation, rng):
    case = Case((-2, 5), 6, 20, 2, 2, window=4)
    q, k, v = case.arrays(rng, "float32")
    together = prefill(implementation, case, q, k, v)
    call = cases.compiled(decode_attention, implementation=implementation, **case.options)
    for t in range(case.queries):
        lengths = jnp.asarray(np.maximum(case.positions[:, t] + 1, 0), jnp.int32)
        step = call(q[:, t], k, v, lengths, prompt_length=case.prompts)
        jax.tree.map(lambda x, y, t=t: cases.assert_near(x, y[:, t], 1e-5, "step"), step, together)


def test_one_start_serves_all_rows(rng):
    case = Case((4, 4), 3, 20, 2, 2)
    arrays = case.arrays(rng, "float32")
    options = {"implementation": "xla", "prompt_length": 4, **case.options}
    want = cases.compiled(prefill_attention, **options)(*arrays, jnp.array([4, 4]))
    for start in (4, jnp.int32(4)):
        got = cases.compiled(prefill_attention, **options)(*arrays, start)
        jax.tree.map(lambda x, y: cases.assert_near(x, y, 1e-6, "one start"), got, want)


def test_blocks_of_queries_do_not_change_the_result(rng, monkeypatch):
    case = Case((0, 3), 7, 20, 2, 2, window=6)
    q, k, v = case.arrays(rng, "float32")
    cases.compiled.cache_clear()
    # Three queries per block, the last one padded.
    monkeypatch.setattr(xla, "BLOCK_ENTRIES", 3 * 2 * 4 * 20)
    check(case, q, k, v, *prefill("xla", case, q, k, v), "float32")
    assert prefill("xla", case, q, k, v, moments=False)[1] is None
