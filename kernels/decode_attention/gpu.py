"""Decode attention for Hopper GPUs: the heads of a group together, the slots divided over the machine."""

import functools

from ..attention import decode_from_prefill
from ..attention_gpu import refuses as refuses
from ..prefill_attention.gpu import prefill_attention

decode_attention = decode_from_prefill(functools.partial(prefill_attention, name="decode_attention"))
