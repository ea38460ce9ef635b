"""Prefill attention for TPUs: blocks of rows (query × head of a group), each over the blocks of slots it sees."""

import functools

from ..attention_tpu import attend
from ..attention_tpu import refuses as refuses

prefill_attention = functools.partial(attend, name="prefill_attention")
