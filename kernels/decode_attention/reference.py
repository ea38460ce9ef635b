"""Reference decode attention: the reference of prefill_attention with one query per row."""

from ..attention import decode_from_prefill
from ..prefill_attention.reference import prefill_attention

decode_attention = decode_from_prefill(prefill_attention)
