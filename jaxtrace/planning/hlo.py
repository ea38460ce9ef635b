"""Collectives and kernels of a compiled program, read from the text of its HLO."""

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
      count: number that one call of the program runs.
      bytes: size of all their results on each device.
    """

    count: int
    bytes: int


@dataclass(frozen=True)
class _Instruction:
    name: str
    root: bool
    shape: str
    opcode: str
    operands: str  # and attributes: the line after the opening parenthesis


def collectives(text: str) -> dict[str, Collective]:
    """Return the collectives of a compiled program by kind; a loop's body counts once per iteration.

    A loop whose number of iterations is unknown before it runs counts once: for a chunk of decode steps, that is one
    step. Every branch of a conditional counts.

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
                # The TPU compiler writes a collective that overlaps other work into several fusions, with one chain_id.
                chain = {(kind, number) for number in re.findall(r'chain_id="(\d+)"', instruction.operands)}
                if not chain & chains:
                    counts[kind] += times
                    sizes[kind] += times * shape_bytes(instruction.shape)
                chains.update(chain)
                continue
            if instruction.opcode == "async-done":  # its collective is counted where it starts
                continue
            iterations = times * (_iterations(instruction, computations) if instruction.opcode == "while" else 1)
            for called in _CALLED.findall(instruction.operands):
                for each in _NAME.findall(called):
                    walk(each, iterations)

    walk(entry, 1)
    return {kind: Collective(counts[kind], sizes[kind]) for kind in KINDS if counts[kind]}


def kernels(text: str) -> tuple[str, ...]:
    """Return the names of the Mosaic kernels that a compiled TPU program calls, each once."""
    calls = re.findall(
        r"%([\w\-]+?)(?:\.\d+)* = [^=]*custom-call\([^)]*\), custom_call_target=\"tpu_custom_call\"", text
    )
    return tuple(sorted({*calls}))


def shape_bytes(shape: str) -> int:
    """Return the bytes of an array, or of all arrays of a tuple, from its shape as HLO writes it."""
    total = 0
    for kind, bits, dims in _ARRAY.findall(shape):
        entries = 1
        for dim in filter(None, dims.split(",")):
            entries *= int(dim)
        total += entries * (8 if kind == "pred" else int(bits or 0)) // 8
    return total


def _parsed(text: str) -> tuple[dict[str, list[_Instruction]], str]:
    """Return the instructions by computation, and the name of the entry computation."""
    computations: dict[str, list[_Instruction]] = {}
    entry = current = ""
    for line in text.splitlines():
        if match := _COMPUTATION.match(line):
            current = match[2]
            entry = current if match[1] else entry
            computations[current] = []
        elif current and (match := _INSTRUCTION.match(line)):
            computations[current].append(_Instruction(match[2], bool(match[1]), *match.groups()[2:]))
    return computations, entry


def _iterations(loop: _Instruction, computations: dict[str, list[_Instruction]]) -> int:
    """Return a loop's number of iterations; 1 if it is unknown before the loop runs."""
    if known := re.search(r'known_trip_count":\{"n":"(\d+)"', loop.operands):
        return int(known[1])
    condition = re.search(r"condition=%?([\w.\-]+)", loop.operands)
    assert condition is not None
    instructions = {instruction.name: instruction for instruction in computations[condition[1]]}
    root = next(instruction for instruction in instructions.values() if instruction.root)
    if root.opcode != "compare" or "direction=LT" not in root.operands:
        return 1
    last = instructions[_NAME.findall(root.operands)[1]]
    return int(last.operands.partition(")")[0]) if last.opcode == "constant" else 1
