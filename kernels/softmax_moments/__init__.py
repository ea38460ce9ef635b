from .api import softmax_moments as softmax_moments
