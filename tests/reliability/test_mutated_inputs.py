"""Damaged and hostile documents of every kind get one line, in bounded time, or are read; nothing is a traceback."""

import random
import time
import warnings
from collections import Counter

import pytest

from jaxtrace.errors import JaxtraceError
from tests.reliability import documents
from tests.reliability.mutators import mutated

CASES = 12_000  # of the nightly test, shared by all documents
FEW = 100
SECONDS = 10  # most for one case on a busy machine
KINDS = (documents.checkpoints, documents.tasks, documents.settings, documents.traces)


@pytest.mark.parametrize("count", [FEW, pytest.param(CASES, marks=pytest.mark.nightly)])
def test_a_damaged_document_is_refused_in_one_line_or_read(count, tmp_path):
    found = [document for kind in KINDS for document in kind(tmp_path / kind.__name__)]
    outcomes, faults = Counter(), []
    for document in found:
        for case in range(-(-count // len(found))):
            seed = f"{document.file.relative_to(tmp_path)} {case}"
            outcome = outcome_of(document, random.Random(seed))
            outcomes[outcome.partition(":")[0]] += 1
            if outcome not in ("read", "refused", "unchanged"):
                faults.append(f"{seed}: {outcome}")
    print(f"{outcomes.total()} mutated inputs of {len(found)} kinds of file: {dict(outcomes)}")
    assert not faults, "\n".join(faults[:50])


def outcome_of(document, chance):
    """Damage a document, read it, restore it, and return what happened in a word; a fault has a colon."""
    whole = document.file.read_bytes()
    want = document.read() if document.exact else None
    changed = mutated(whole, chance, is_json=document.is_json)
    began = time.monotonic()
    document.file.write_bytes(changed)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            got = document.read()
    except JaxtraceError as error:
        return _fault_of(str(error)) or _fault_of_time(began) or "refused"
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        return f"traceback: {type(error).__name__}: {str(error)[:200]}"
    finally:
        document.file.write_bytes(whole)
    if document.exact:
        return "unchanged" if got == want else "changed: another value was read"
    return _fault_of_time(began) or ("read" if changed != whole else "unchanged")


def _fault_of(message):
    if "\n" in message or any(ord(letter) < 32 or 127 <= ord(letter) < 160 for letter in message):
        return f"control: {message[:200]!r}"
    return f"long: {len(message)} characters, {message[:200]!r}" if len(message) > 3000 else ""


def _fault_of_time(began):
    seconds = time.monotonic() - began
    return f"slow: {seconds:.0f} s" if seconds > SECONDS else ""
