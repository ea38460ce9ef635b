"""Estimators of uncertainty: functions from a trace to one score per answer."""

from jaxtrace.estimators.attention import attention_score_gen_only as attention_score_gen_only
from jaxtrace.estimators.attention import rauq as rauq
from jaxtrace.estimators.attention import rauq_entropy as rauq_entropy
from jaxtrace.estimators.divergence import fisher_rao as fisher_rao
from jaxtrace.estimators.divergence import fisher_rao_t2 as fisher_rao_t2
from jaxtrace.estimators.divergence import renyi_neg as renyi_neg
from jaxtrace.estimators.divergence import renyi_neg_t2 as renyi_neg_t2
from jaxtrace.estimators.divergence import self_certainty as self_certainty
from jaxtrace.estimators.entropy import entropy_change as entropy_change
from jaxtrace.estimators.entropy import entropy_rise as entropy_rise
from jaxtrace.estimators.entropy import first_entropy as first_entropy
from jaxtrace.estimators.entropy import max_token_entropy as max_token_entropy
from jaxtrace.estimators.entropy import max_varentropy as max_varentropy
from jaxtrace.estimators.entropy import mean_token_entropy as mean_token_entropy
from jaxtrace.estimators.entropy import mean_varentropy as mean_varentropy
from jaxtrace.estimators.entropy import p90_entropy as p90_entropy
from jaxtrace.estimators.entropy import spike_run as spike_run
from jaxtrace.estimators.entropy import spikes as spikes
from jaxtrace.estimators.equivalence import AnswerPair as AnswerPair
from jaxtrace.estimators.equivalence import AnyComparison as AnyComparison
from jaxtrace.estimators.equivalence import BatchComparison as BatchComparison
from jaxtrace.estimators.equivalence import Comparer as Comparer
from jaxtrace.estimators.evaluation import evaluate as evaluate
from jaxtrace.estimators.probability import least_top1_prob as least_top1_prob
from jaxtrace.estimators.probability import length as length
from jaxtrace.estimators.probability import max_surprise_z as max_surprise_z
from jaxtrace.estimators.probability import maximum_sequence_probability as maximum_sequence_probability
from jaxtrace.estimators.probability import mean_surprise_z as mean_surprise_z
from jaxtrace.estimators.probability import perplexity as perplexity
from jaxtrace.estimators.probability import surprisal_gap as surprisal_gap
from jaxtrace.estimators.registry import Estimator as Estimator
from jaxtrace.estimators.registry import estimator as estimator
from jaxtrace.estimators.registry import known_estimators as known_estimators
from jaxtrace.estimators.relevance import cocoa_msp as cocoa_msp
from jaxtrace.estimators.relevance import cocoa_mte as cocoa_mte
from jaxtrace.estimators.relevance import cocoa_ppl as cocoa_ppl
from jaxtrace.estimators.relevance import sar as sar
from jaxtrace.estimators.relevance import semantic_density as semantic_density
from jaxtrace.estimators.relevance import sentence_sar as sentence_sar
from jaxtrace.estimators.relevance import token_sar as token_sar
from jaxtrace.estimators.samples import deg_mat as deg_mat
from jaxtrace.estimators.samples import discrete_semantic_entropy as discrete_semantic_entropy
from jaxtrace.estimators.samples import eccentricity as eccentricity
from jaxtrace.estimators.samples import eig_val_laplacian as eig_val_laplacian
from jaxtrace.estimators.samples import kernel_language_entropy as kernel_language_entropy
from jaxtrace.estimators.samples import lexical_similarity as lexical_similarity
from jaxtrace.estimators.samples import (
    monte_carlo_normalized_sequence_entropy as monte_carlo_normalized_sequence_entropy,
)
from jaxtrace.estimators.samples import monte_carlo_sequence_entropy as monte_carlo_sequence_entropy
from jaxtrace.estimators.samples import num_sem_sets as num_sem_sets
from jaxtrace.estimators.samples import semantic_entropy as semantic_entropy
from jaxtrace.estimators.samples import semantic_entropy_normalized as semantic_entropy_normalized
from jaxtrace.estimators.samples import semantic_entropy_unique as semantic_entropy_unique
from jaxtrace.estimators.scores import Scores as Scores
from jaxtrace.estimators.table import estimate as estimate
