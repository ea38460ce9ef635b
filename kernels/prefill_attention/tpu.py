"""prefill_attention for TPUs: blocks of rows, the heads of a group folded in, each over the blocks that it sees."""

import functools

from ..attention_tpu import attend
from ..attention_tpu import refuses as refuses

prefill_attention = functools.partial(attend, name="prefill_attention")
