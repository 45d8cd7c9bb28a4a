"""Filters of system calls, as programs for the kernel's classic BPF.

A program reads one call (its number, its architecture, the low halves of its arguments) and answers
with a verdict. Jumps only go forward, so it always ends. Invariant: a rule's block either answers or
falls through to the next, so rules can be joined in any number and order.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

ALLOW = 0x7FFF0000
_ERRNO = 0x00050000
_LOAD, _EQUAL, _GREATER, _AND, _RETURN = 0x20, 0x15, 0x25, 0x54, 0x06
_AT_NUMBER, _AT_ARCHITECTURE, _AT_ARGUMENTS = 0, 4, 16
_ALL = 0xFFFFFFFF


class Instruction(NamedTuple):
    """One step, as the kernel's `struct sock_filter`."""

    code: int
    if_true: int
    if_false: int
    value: int


@dataclass(frozen=True, slots=True)
class Check:
    """Whether the low 32 bits of an argument, masked, are one of some values.

    The arguments looked at are `int` or flags of 32 bits for the kernel too. What a pointer points to
    cannot be looked at.
    """

    argument: int
    values: tuple[int, ...]
    mask: int = _ALL


@dataclass(frozen=True, slots=True)
class Refuse:
    """Answers a call with an error; 0 claims that it was done."""

    call: str
    errno: int


@dataclass(frozen=True, slots=True)
class Only:
    """Allows a call if every check holds; answers with an error otherwise."""

    call: str
    checks: tuple[Check, ...]
    errno: int


@dataclass(frozen=True, slots=True)
class Except:
    """Answers a call with an error if every check holds; allows it otherwise."""

    call: str
    checks: tuple[Check, ...]
    errno: int


Rule = Refuse | Only | Except


def refusal(errno: int) -> int:
    """The verdict that answers with an error."""
    return _ERRNO | errno


def opening(
    architecture: int, last_known: int, errno: int, errno_unknown: int
) -> list[Instruction]:
    """Refuses calls of another architecture and calls above a number; leaves the number loaded."""
    return [
        Instruction(_LOAD, 0, 0, _AT_ARCHITECTURE),
        Instruction(_EQUAL, 1, 0, architecture),
        Instruction(_RETURN, 0, 0, refusal(errno)),
        Instruction(_LOAD, 0, 0, _AT_NUMBER),
        Instruction(_GREATER, 0, 1, last_known),
        Instruction(_RETURN, 0, 0, refusal(errno_unknown)),
    ]


def block(rule: Rule, number: int) -> list[Instruction]:
    """The part of a program that answers one call. Expects the call's number loaded."""
    if isinstance(rule, Refuse):
        body = [Instruction(_RETURN, 0, 0, refusal(rule.errno))]
    else:
        held, failed = ALLOW, refusal(rule.errno)
        if isinstance(rule, Except):
            held, failed = failed, held
        body = [each for check in rule.checks for each in _check(check, failed)]
        body.append(Instruction(_RETURN, 0, 0, held))
    return [Instruction(_EQUAL, 0, len(body), number), *body]


def _check(check: Check, failed: int) -> list[Instruction]:
    """Answers `failed` unless it holds."""
    steps = [Instruction(_LOAD, 0, 0, _AT_ARGUMENTS + 8 * check.argument)]
    if check.mask != _ALL:
        steps.append(Instruction(_AND, 0, 0, check.mask))
    last = len(check.values) - 1
    steps += [
        Instruction(_EQUAL, last - place + 1, 0, value & _ALL)
        for place, value in enumerate(check.values)
    ]
    steps.append(Instruction(_RETURN, 0, 0, failed))
    return steps


def closing() -> list[Instruction]:
    """Allows what no rule answered."""
    return [Instruction(_RETURN, 0, 0, ALLOW)]


def encode(program: Iterable[Instruction]) -> bytes:
    return b"".join(struct.pack("HBBI", *each) for each in program)
