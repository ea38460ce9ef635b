from .api import prefill_attention as prefill_attention
