"""`make chaos`: users talk with agents while parts of the chain are killed, stopped, cut and filled."""

from __future__ import annotations

import asyncio
import shutil
import signal
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import uvloop

from tests.chaos.chain import ChainFailed, ChaosChain, chaos_chain
from tests.chaos.checker import check
from tests.chaos.driver import Driver
from tests.chaos.faults import FULL, all_faults, in_turn
from tests.chaos.options import Options, parse
from tests.chaos.recovery import RecoveryWatch
from tests.chaos.report import report
from tests.chaos.user import Habits, User

_LAST_RUNS_S = 120.0
_ENVIRONMENT = {
    "FACTORYCHAIN_FRAMES_PER_S": "1000",
    "FACTORYCHAIN_FRAMES_BURST": "1000",
    "FACTORYCHAIN_LOG_FORMAT": "json",
    # What an engine that is gone has held is found sooner, and with it the places of its users.
    "FACTORYCHAIN_HEARTBEAT_TTL_S": "3",
    "FACTORYCHAIN_CLEANUP_INTERVAL_S": "1",
}


async def chaos(options: Options, folder: Path) -> bool:
    """Whether every promise was kept."""
    tell = _Teller()
    me = asyncio.current_task()
    assert me is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, me.cancel)
    env = {**_ENVIRONMENT, "FACTORYCHAIN_LOG_LEVEL": options.log_level}
    disk_bytes = options.disk_mib * 1024 * 1024 if FULL in options.kinds else 0
    tell(f"seed {options.seed}, logs in {folder}; the chain starts")
    async with chaos_chain(folder, env, disk_bytes) as chain:
        if disk_bytes and chain.disk is None:
            tell("mounting a tmpfs is not allowed here: no full disk")
            options = replace(options, kinds=tuple(set(options.kinds) - {FULL}))
        driver = await _live_through(chain, folder, options, tell)
        if chain.disk is not None:
            tell(f"the store took {chain.disk.used_bytes / 1e6:.0f} MB")
    tell("checking")
    breaks = [each.as_break() for each in driver.injected]
    findings = check(sorted(folder.glob("seen-*.jsonl")), folder / "chain.log", breaks)
    report(findings, driver.injected, driver.unrecovered, tell)
    return findings.good and not driver.unrecovered


async def _live_through(chain: ChaosChain, folder: Path, options: Options, tell: _Teller) -> Driver:
    watch, done = RecoveryWatch(), asyncio.Event()
    habits = Habits(options.steps, options.pause_ms)
    users = [
        User(chain.edge, chain.token, f"u{index}", folder, habits, options.seed, watch, lanes=1 + index % 2)
        for index in range(options.users)
    ]  # fmt: skip
    driver = Driver(chain, watch, lambda: sum(each.in_flight for each in users), tell)
    lives = [asyncio.create_task(each.live(done)) for each in users]
    try:
        every = all_faults(options.kinds, options.parts)
        plan = in_turn(options.seed, every, options.shortest_s, options.longest_s)
        driving = asyncio.create_task(driver.run(plan, options.seconds, options.seed))
        await asyncio.wait({driving, *lives}, return_when=asyncio.FIRST_COMPLETED)
        for each in lives:
            if each.done():
                each.result()
        driving.result()
        done.set()
        tell(f"{driver.in_flight()} last runs")
        await asyncio.wait(lives, timeout=_LAST_RUNS_S)
    finally:
        for each in lives:
            each.cancel()
        await asyncio.gather(*lives, return_exceptions=True)
    return driver


class _Teller:
    """Prints lines with the time since the beginning."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    def __call__(self, line: str) -> None:
        print(f"[{time.monotonic() - self._began:6.1f}] {line}", flush=True)


def main() -> int:
    """The exit status."""
    options = parse()
    folder = options.keep or Path(tempfile.mkdtemp(prefix="factorychain-chaos-"))
    folder.mkdir(parents=True, exist_ok=True)
    good = False
    try:
        good = uvloop.run(chaos(options, folder))
    except ChainFailed as error:
        print(error, file=sys.stderr)
        return 2
    except asyncio.CancelledError:
        print("told to stop", file=sys.stderr)
    finally:
        if good and options.keep is None:
            shutil.rmtree(folder)
    if not good:
        print(f"FAILED with --seed {options.seed}; logs and journals are in {folder}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
