"""decode_attention for XLA: a block of one query per row."""

from ..attention import one_query
from ..prefill_attention.xla import attention_block

decode_attention = one_query(attention_block)
