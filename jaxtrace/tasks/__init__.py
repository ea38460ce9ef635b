"""Tasks: sources of prompts, by name."""

from jaxtrace.prompts import Prompt
from jaxtrace.tasks.registry import known_tasks, load_task, task

__all__ = ["Prompt", "known_tasks", "load_task", "task"]
