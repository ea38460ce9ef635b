"""Data in, prompts out."""

from jaxtrace.tasks.prompt import Prompt
from jaxtrace.tasks.registry import TASKS, load_task

__all__ = ["TASKS", "Prompt", "load_task"]
