"""Study of confidence: the probability that an answer, or the answer of a token, is right, learned from traces."""
