"""decode_attention, obviously: prefill_attention's reference with one query per row."""

from ..attention import one_query
from ..prefill_attention.reference import prefill_attention

decode_attention = one_query(prefill_attention)
