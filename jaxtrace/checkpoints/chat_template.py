"""Chat templates: Jinja programs of a checkpoint that format messages as one text."""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from jaxtrace.documents import MAX_TEXT, MIB, read_json, read_text
from jaxtrace.errors import CheckpointError, PromptError, few

WORKER = Path(__file__).with_name("template_worker.py")
CLOCK = "strftime_now"  # function of a template that formats the current time
SOURCE = 1_000_000  # most characters of a template; published ones have up to 60,000
SECONDS, CHARACTERS, MEMORY = 10.0, 1_000_000, 512 << 20  # most that one rendering may take


class ChatTemplate:
    """A chat template.

    Attributes:
      source: program of the template.
    """

    def __init__(self, source: str) -> None:
        self.source = source

    @classmethod
    def read(cls, directory: Path, settings: Mapping[str, Any]) -> ChatTemplate | None:
        """Read the template of a checkpoint; return None for a checkpoint without one.

        The first that exists is used: chat_template.jinja, an entry of tokenizer_config.json, chat_template.json. Of
        several named templates it is "default".

        Args:
          directory: directory of the checkpoint.
          settings: content of its tokenizer_config.json.

        Raises:
          CheckpointError: the template is no text.
        """
        file = directory / "chat_template.jinja"
        if file.is_file() and file.stat().st_size > MAX_TEXT:
            return cls(failing_template(f"{file.name} is larger than {MAX_TEXT // MIB} MiB"))
        if file.exists():
            return cls(read_text(file, CheckpointError, "download it again"))
        stored = settings.get("chat_template")
        file = directory / "chat_template.json"
        if stored is None and file.exists():
            stored = read_json(file, CheckpointError, "download it again", finite=False).get("chat_template")
        return cls.of(stored, str(directory))

    @classmethod
    def of(cls, stored: Any, source: str) -> ChatTemplate | None:
        """Return the template of a "chat_template" entry: a text, or several with names; None for a null entry.

        Args:
          stored: the entry.
          source: name of the checkpoint, for error messages.

        Raises:
          CheckpointError: the template is no text.
        """
        if isinstance(stored, list):
            stored = {str(named.get("name")): named.get("template") for named in stored if isinstance(named, dict)}
        if isinstance(stored, dict):
            names = few(list(map(str, stored)))
            stored = stored.get("default", failing_template(f"none of {names} is named default"))
        if not isinstance(stored, str | None):
            shown = str(stored)[:100]
            raise CheckpointError(f"{source}: the chat template is {shown}, which is no text; download it again")
        return cls(stored) if stored else None

    @property
    def hash(self) -> str:
        """SHA-256 of the program."""
        return hashlib.sha256(self.source.encode(errors="surrogatepass")).hexdigest()

    @property
    def reads_clock(self) -> bool:
        """True if the template may print the current time."""
        return CLOCK in self.source

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        special_tokens: Mapping[str, str],
        arguments: Mapping[str, Any],
        date: datetime,
    ) -> str:
        """Return the text of messages, up to the beginning of the answer.

        Args:
          messages: messages with their roles.
          special_tokens: texts of the tokenizer's special tokens by name, such as "bos_token".
          arguments: further variables of the template, which override special tokens.
          date: current time for the template.

        Raises:
          PromptError: the template has no such argument, fails, or exceeds a limit of `Renderer`.
        """
        if len(self.source) > SOURCE:
            raise PromptError(f"the chat template has more than {SOURCE:,} characters; {ADVICE}")
        return RENDERER.render(
            source=self.source,
            messages=messages,
            special_tokens=special_tokens,
            arguments=arguments,
            date=date.isoformat(),
        )


class Renderer:
    """Process that renders chat templates, one after another.

    It starts at the first rendering, and again after one that exceeded a limit. It ends with this process, also if that
    is killed: its input then ends.
    """

    def __init__(self, seconds: float = SECONDS, characters: int = CHARACTERS, memory: int = MEMORY) -> None:
        """Set the limits of a rendering.

        Args:
          seconds: most wall time.
          characters: most characters of the text, plus four times the length of the messages.
          memory: most bytes that it may allocate; macOS does not enforce them.
        """
        self._limits = (seconds, characters, memory)
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    def render(self, **request: Any) -> str:
        """Return the text that a template writes.

        Args:
          **request: arguments of the worker's function `_render`, as JSON values.

        Raises:
          PromptError: the template fails, does not have an argument, or exceeds a limit.
        """
        with self._lock:
            reply = self._exchange(json.dumps(request).encode() + b"\n")
            if "limit" in reply:
                self.close()
        if "limit" in reply:
            raise PromptError(f"the chat template {reply['limit']}; {ADVICE}")
        if "error" in reply:
            raise PromptError(reply["error"])
        return reply["text"]

    def close(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            with contextlib.suppress(BrokenPipeError), process:  # closes the pipes and waits
                pass

    def _exchange(self, request: bytes) -> dict[str, str]:
        process = self._process = self._process or self._start()
        assert process.stdin and process.stdout
        line = b""
        try:
            with contextlib.suppress(BrokenPipeError):
                process.stdin.write(request)
                process.stdin.flush()
                line = process.stdout.readline()
        finally:
            if not line:  # it has ended; or Ctrl-C came, and the next request must not get this reply
                self.close()
        if line:
            return json.loads(line)
        ending = process.returncode
        if ending == -signal.SIGALRM:
            return {"limit": f"takes more than {self._limits[0]:g} s"}
        return {"limit": f"ends its process ({signal.Signals(-ending).name if ending < 0 else f'status {ending}'})"}

    def _start(self) -> subprocess.Popen[bytes]:
        # -S skips site-packages' start-up code. The worker gets this process's path, wherever Jinja comes from.
        command = [sys.executable, "-P", "-S", str(WORKER), *map(str, self._limits)]
        try:
            return subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, sys.path))},
                start_new_session=True,  # Ctrl-C in a terminal is meant for this process
            )
        except OSError as error:
            raise PromptError(
                f"the chat template needs a process of {sys.executable!r} ({error.strerror}); use raw prompts (--raw)"
            ) from None


def failing_template(problem: str) -> str:
    """Return a template that fails only when it is used, so that raw prompts still work."""
    return f"{{{{ raise_exception({problem!r}) }}}}"


ADVICE = "use raw prompts (--raw) or another template"
RENDERER = Renderer()
atexit.register(RENDERER.close)
os.register_at_fork(after_in_child=RENDERER.__init__)  # a fork must not share the pipes
