from .api import decode_attention as decode_attention
