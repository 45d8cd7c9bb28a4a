"""Memory, processor time, files and weight."""

from __future__ import annotations

import errno
import math
import os
import signal
from pathlib import Path

from tests.unit._sandbox.attempts import limits, working
from tests.unit._sandbox.confined import Cell

MIB = 1024 * 1024


def test_memory_ends_at_the_limit_beyond_what_was_mapped(own: Cell) -> None:
    own = own.with_(memory_bytes=64 * MIB)
    assert own.attempt(limits.allocate, 32 * MIB).value == 32 * MIB
    came = own.attempt(limits.allocate, 80 * MIB)
    assert came.error == "MemoryError"
    assert "memory_bytes" in came.hint


def test_shared_memory_counts_too(own: Cell) -> None:
    came = own.with_(memory_bytes=64 * MIB).attempt(limits.map_shared, 80 * MIB)
    assert came.errno == errno.ENOMEM
    assert "memory_bytes" in came.hint


def test_a_thread_takes_its_stack_and_no_heap_of_its_own(own: Cell) -> None:
    grown = own.attempt(limits.heaps_of_threads, 12).value
    assert isinstance(grown, int)
    assert grown < 12 * 16 * MIB + 3 * 64 * MIB  # else 64 MiB for each


def test_memory_that_is_no_address_space_is_refused(own: Cell) -> None:
    assert own.attempt(limits.allocate_in_memory_files, MIB).errno == errno.ENOSYS


def test_threads_end_with_the_memory(own: Cell) -> None:
    came = own.with_(memory_bytes=128 * MIB).attempt(working.hold_threads)
    assert came.error == "RuntimeError"
    assert "memory_bytes" in came.hint


def test_who_spins_is_told_and_a_second_later_killed(own: Cell) -> None:
    own = own.with_(cpu_s=0.05)
    assert own.attempt(limits.spin_until_told).value == "told"
    assert own.attempt(limits.spin).exit == -signal.SIGKILL


def test_open_files_and_file_size_end_at_the_limit(own: Cell) -> None:
    came = own.with_(open_files=40).attempt(limits.open_files)
    assert came.errno == errno.EMFILE
    assert "open files" in came.hint
    own = own.with_(file_bytes=MIB)
    came = own.attempt(limits.write_bytes, 2 * MIB)
    assert came.errno == errno.EFBIG
    assert "size" in came.hint
    assert (own.directory / "big").stat().st_size <= MIB


def test_limits_are_hard_and_leave_no_core(own: Cell) -> None:
    found = own.with_(open_files=100, file_bytes=MIB, cpu_s=7).attempt(limits.limits).value
    assert isinstance(found, dict)
    assert found["RLIMIT_CORE"] == [0, 0]
    assert found["RLIMIT_NOFILE"] == [100, 100]
    assert found["RLIMIT_FSIZE"] == [MIB, MIB]
    soft, hard = found["RLIMIT_CPU"]
    assert 7 < soft <= 7 + math.ceil(os.times().user + os.times().system) + 5
    assert hard == soft + 1
    assert own.attempt(limits.raise_limit).error == "ValueError"


def test_it_weighs_less_than_who_started_it(own: Cell) -> None:
    before = os.nice(0)
    value = own.with_(processes_nice=5).attempt(limits.niceness).value
    assert value == [min(before + 5, 19), "1000"]
    assert Path("/proc/self/oom_score_adj").read_text().strip() != "1000"
