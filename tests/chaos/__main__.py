"""`make chaos`: users talk with agents while parts of the chain are killed, stopped, cut and filled."""

from __future__ import annotations

import asyncio
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

import uvloop

from tests.chaos.chain import ChainFailed
from tests.chaos.life import FaultImpossible, Life
from tests.chaos.options import Options, parse
from tests.chaos.watchdog import Watchdog


async def chaos(options: Options, folder: Path) -> bool:
    """Whether every promise was kept, in every form."""
    tell = _Teller()
    me, loop = asyncio.current_task(), asyncio.get_running_loop()
    assert me is not None
    loop.add_signal_handler(signal.SIGTERM, me.cancel)
    watchdog = Watchdog(loop)
    seconds = options.seconds / len(options.forms)
    outcomes = {}
    for form in options.forms:
        life = Life(form, options, seconds, folder / form.name, watchdog, tell)
        outcomes[form.name] = await life.lead()
    watchdog.rest()
    for name, outcome in outcomes.items():
        broken = sum(map(len, outcome.findings.broken.values())) + len(outcome.failures)
        words = f"{name}: {outcome.faults} faults, {outcome.findings.started} runs, "
        words += f"{outcome.findings.events} events, {broken} broken promises"
        words += "".join(f"; NOT TRIED: {each}" for each in outcome.skipped)
        tell(words + ("" if outcome.good else ": FAILED"))
    return all(each.good for each in outcomes.values())


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
    except FaultImpossible as error:
        print(error, file=sys.stderr)
        return 1
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
