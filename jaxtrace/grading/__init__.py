"""Which answers of a trace are right: by rules on strings, or by a model that is asked. Never guessed."""

from jaxtrace.grading.strings import Grade, Graded, grade, graded

__all__ = ["Grade", "Graded", "grade", "graded"]
