"""`python -P -m factorychain_engine`: the engine as a process."""

from __future__ import annotations

from factorychain._core.runtime import run_service
from factorychain._core.settings import EngineSettings
from factorychain_engine.server import build

if __name__ == "__main__":
    run_service("engine", EngineSettings, build)
