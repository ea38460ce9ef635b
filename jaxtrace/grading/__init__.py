"""Grades of answers: by rules on strings, or by a judge model; an answer that neither can grade is ungraded."""

from jaxtrace.grading.strings import Grade, RuleGrade, grade, grade_with_rule

__all__ = ["Grade", "RuleGrade", "grade", "grade_with_rule"]
