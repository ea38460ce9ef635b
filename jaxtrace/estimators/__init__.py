"""Estimators of uncertainty: functions from a trace to one score per answer."""

from jaxtrace.estimators.probability import maximum_sequence_probability as maximum_sequence_probability
from jaxtrace.estimators.probability import perplexity as perplexity
from jaxtrace.estimators.registry import Estimator as Estimator
from jaxtrace.estimators.registry import estimator as estimator
from jaxtrace.estimators.registry import known_estimators as known_estimators
from jaxtrace.estimators.scores import Scores as Scores
from jaxtrace.estimators.table import estimate as estimate
