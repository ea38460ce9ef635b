from .api import head_dispersion as head_dispersion
