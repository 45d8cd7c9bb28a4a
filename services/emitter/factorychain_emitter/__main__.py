"""`python -P -m factorychain_emitter`: the emitter as a process."""

from __future__ import annotations

from factorychain._core.runtime import run_service
from factorychain._core.settings import EmitterSettings
from factorychain_emitter.server import build

if __name__ == "__main__":
    run_service("emitter", EmitterSettings, build)
