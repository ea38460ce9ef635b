"""What a compiled program says of itself: its collectives, and its kernels, from the text of its HLO."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

KINDS = ("all-gather", "all-reduce", "all-to-all", "collective-broadcast", "collective-permute", "reduce-scatter")

_COMPUTATION = re.compile(r"(ENTRY )?%?([\w.\-]+) \(.*\) -> .*\{$")
_INSTRUCTION = re.compile(r"\s+(ROOT )?%?([\w.\-]+) = (.*?) ([a-z][\w\-]*)\((.*)")
_CALLED = re.compile(r"(?:calls|to_apply|body|branch_computations|(?:true|false)_computation)=(\{[^}]*\}|%[\w.\-]+)")
_NAME = re.compile(r"%([\w.\-]+)")
_ARRAY = re.compile(r"\b([a-z]+)(\d*)\w*\[([\d,]*)\]")


@dataclass(frozen=True)
class Collective:
    """The collectives of one kind in a program.

    Attributes:
      count: how many a call of the program runs.
      bytes: of all their results, on each device.
    """

    count: int
    bytes: int


@dataclass(frozen=True)
class _Instruction:
    name: str
    root: bool
    shape: str
    opcode: str
    rest: str


def collectives(text: str) -> dict[str, Collective]:
    """Collectives of a compiled program by kind, those of a loop once for each time it goes round.

    A loop whose end is not known before it runs counts once: for a chunk of decode steps, that is one step. Of a
    conditional every branch counts.

    Args:
      text: `Compiled.as_text()`.
    """
    computations, entry = _parsed(text)
    counts: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    chains: set[tuple[str, str]] = set()

    def walk(name: str, times: int) -> None:
        for instruction in computations[name]:
            kind = instruction.opcode.removesuffix("-done")
            if kind in KINDS:
                # The TPU compiler writes one that runs beside other work into several fusions, with one number.
                chain = {(kind, number) for number in re.findall(r'chain_id="(\d+)"', instruction.rest)}
                if not chain & chains:
                    counts[kind] += times
                    sizes[kind] += times * shape_bytes(instruction.shape)
                chains.update(chain)
                continue
            if instruction.opcode == "async-done":  # what it waits for is counted where it starts
                continue
            rounds = times * (_rounds(instruction, computations) if instruction.opcode == "while" else 1)
            for called in _CALLED.findall(instruction.rest):
                for each in _NAME.findall(called):
                    walk(each, rounds)

    walk(entry, 1)
    return {kind: Collective(counts[kind], sizes[kind]) for kind in KINDS if counts[kind]}


def kernels(text: str) -> tuple[str, ...]:
    """Names of the Mosaic kernels that a compiled program for TPUs calls, each once."""
    calls = re.findall(
        r"%([\w\-]+?)(?:\.\d+)* = [^=]*custom-call\([^)]*\), custom_call_target=\"tpu_custom_call\"", text
    )
    return tuple(sorted({*calls}))


def shape_bytes(shape: str) -> int:
    """Bytes of an array's shape, or of all the arrays in a tuple's, as HLO writes it."""
    total = 0
    for kind, bits, dims in _ARRAY.findall(shape):
        entries = 1
        for dim in filter(None, dims.split(",")):
            entries *= int(dim)
        total += entries * (8 if kind == "pred" else int(bits or 0)) // 8
    return total


def _parsed(text: str) -> tuple[dict[str, list[_Instruction]], str]:
    """Instructions by computation, and the name of the first one to run."""
    computations: dict[str, list[_Instruction]] = {}
    entry = current = ""
    for line in text.splitlines():
        if found := _COMPUTATION.match(line):
            current = found[2]
            entry = current if found[1] else entry
            computations[current] = []
        elif current and (found := _INSTRUCTION.match(line)):
            computations[current].append(_Instruction(found[2], bool(found[1]), *found.groups()[2:]))
    return computations, entry


def _rounds(loop: _Instruction, computations: dict[str, list[_Instruction]]) -> int:
    """How often a loop goes round; 1 where that is not known before it runs."""
    if known := re.search(r'known_trip_count":\{"n":"(\d+)"', loop.rest):
        return int(known[1])
    condition = re.search(r"condition=%?([\w.\-]+)", loop.rest)
    assert condition is not None
    instructions = {instruction.name: instruction for instruction in computations[condition[1]]}
    root = next(instruction for instruction in instructions.values() if instruction.root)
    if root.opcode != "compare" or "direction=LT" not in root.rest:
        return 1
    last = instructions[_NAME.findall(root.rest)[1]]
    return int(last.rest.partition(")")[0]) if last.opcode == "constant" else 1
