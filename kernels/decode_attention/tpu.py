"""Decode attention for TPUs: the query heads of a KV head together, and several KV heads in one block of slots."""

import functools

from ..attention import decode_from_prefill
from ..attention_tpu import attend
from ..attention_tpu import refuses as refuses

decode_attention = decode_from_prefill(functools.partial(attend, name="decode_attention"))
