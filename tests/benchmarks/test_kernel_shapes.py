"""Sizes of the kernels' benchmark as text, and their cost counted by hand."""

import jax.numpy as jnp
import pytest
from jaxtrace.kernels.attention import visible_keys

from benchmarks.kernel_shapes import AXES, default_shapes, flops, parse_shape, shape_text


def test_axes_are_sorted():
    shape = parse_shape("V=32000,R=6", "softmax_moments")
    assert shape == {"R": 6, "V": 32000}
    assert shape_text(shape) == "R=6,V=32000"


@pytest.mark.parametrize("op", AXES)
def test_default_shapes_parse_to_themselves(op):
    shapes = default_shapes(op)
    assert [parse_shape(shape_text(shape), op) for shape in shapes] == shapes
    assert len({shape_text(shape) for shape in shapes}) == len(shapes)


@pytest.mark.parametrize(
    ("op", "text", "message"),
    [
        ("softmax_moments", "R=6", "softmax_moments takes R=…,V=…"),
        ("softmax_moments", "R=6,R=6,V=3", "takes R=…,V=…"),
        ("softmax_moments", "R=6,V=3,D=4", "takes R=…,V=…"),
        ("softmax_moments", "", "takes R=…,V=…"),
        ("softmax_moments", "R=0,V=3", "not a positive integer; give 1 or more"),
        ("softmax_moments", "R=1.5,V=3", "not a positive integer; give 1 or more"),
        ("decode_attention", "B=1,S=4,N=3,K=2,H=8", "3 query heads cannot share 2"),
        ("prefill_attention", "B=1,T=5,S=4,N=2,K=2,H=8", "5 queries do not fit into 4 slots"),
    ],
)
def test_bad_shapes_are_refused(op, text, message):
    with pytest.raises(ValueError, match=message):
        parse_shape(text, op)


def test_flops_of_one_product():
    assert flops("unembed_moments", {"G": 2, "R": 3, "D": 5, "V": 7}) == 2 * 6 * 5 * 7
    assert flops("softmax_moments", {"R": 6, "V": 32000}) == 0


def test_flops_of_decode_count_two_products():
    assert flops("decode_attention", {"B": 2, "S": 9, "N": 4, "K": 2, "H": 8}) == 2 * 2 * (2 * 4 * 9 * 8)


@pytest.mark.parametrize("queries", [1, 3, 7])
def test_flops_of_many_queries_count_visible_keys(queries):
    shape = {"B": 2, "T": queries, "S": 7, "N": 4, "K": 2, "H": 8}
    mask = visible_keys(jnp.arange(7 - queries, 7), 7, None)
    one_product = 2 * 2 * 4 * 8 * int(mask.sum())
    assert flops("prefill_attention", shape) == 2 * one_product
    assert flops("head_dispersion", shape) == one_product
