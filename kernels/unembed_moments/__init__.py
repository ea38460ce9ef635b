from .api import unembed_moments as unembed_moments
