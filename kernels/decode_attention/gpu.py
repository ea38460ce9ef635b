"""decode_attention for Hopper GPUs: the heads of a group together, the slots shared out over the machine."""

import functools

from ..attention import one_query
from ..attention_gpu import refuses as refuses
from ..prefill_attention.gpu import prefill_attention

decode_attention = one_query(functools.partial(prefill_attention, name="decode_attention"))
