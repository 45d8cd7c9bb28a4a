"""`python -P -m factorychain_engine`: the engine as a process."""

import gc

gc.disable()  # what is imported stays: looking through it again and again takes a tenth of the start

from factorychain._core.runtime import run_service
from factorychain._core.settings import EngineSettings
from factorychain_engine.server import build

if __name__ == "__main__":
    run_service("engine", EngineSettings, build)
