from .api import cross_attention as cross_attention
from .api import cross_dispersion as cross_dispersion
