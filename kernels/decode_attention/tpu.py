"""decode_attention for TPUs: the query heads of a KV head together, and KV heads together in one block of slots."""

import functools

from ..attention import one_query
from ..attention_tpu import attend
from ..attention_tpu import refuses as refuses

decode_attention = one_query(functools.partial(attend, name="decode_attention"))
