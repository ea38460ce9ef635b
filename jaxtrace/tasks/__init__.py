"""Data in, prompts out."""

from jaxtrace.prompts import Prompt
from jaxtrace.tasks.registry import known_tasks, load_task

__all__ = ["Prompt", "known_tasks", "load_task"]
