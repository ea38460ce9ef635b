"""Operations that return softmax moments from inside attention and unembedding; imports nothing of jaxtrace."""

from .attention import AttentionMoments as AttentionMoments
from .attention import Chunk as Chunk
from .cross_attention import cross_attention as cross_attention
from .cross_attention import cross_dispersion as cross_dispersion
from .decode_attention import decode_attention as decode_attention
from .dispatch import Unsupported as Unsupported
from .dispatch import compiling_for as compiling_for
from .head_dispersion import head_dispersion as head_dispersion
from .head_dispersion.api import dispersion_of as dispersion_of
from .linear import linear as linear
from .moments import Moments as Moments
from .precision import at_precision as at_precision
from .precision import einsum as einsum
from .precision import precision_name as precision_name
from .prefill_attention import prefill_attention as prefill_attention
from .soft_cap import soft_capped as soft_capped
from .softmax_moments import softmax_moments as softmax_moments
from .unembed_moments import unembed_moments as unembed_moments
from .unembed_moments.types import UnembedMoments as UnembedMoments
