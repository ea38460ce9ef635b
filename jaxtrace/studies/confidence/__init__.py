"""How sure of an answer, or of each of its tokens, one may be, learned from what traces record."""

from jaxtrace.studies.confidence.files import load, save
from jaxtrace.studies.confidence.model import Confidence
from jaxtrace.studies.confidence.study import train

__all__ = ["Confidence", "load", "save", "train"]
