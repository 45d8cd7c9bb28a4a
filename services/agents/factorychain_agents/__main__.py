"""`python -P -m factorychain_agents`: one replica of the agents layer, configured by `FACTORYCHAIN_*`."""

import gc

gc.disable()  # what is imported stays: looking through it again and again takes a tenth of the start

from factorychain._core.runtime import run_service
from factorychain._core.settings import AgentsSettings
from factorychain_agents.server import build

if __name__ == "__main__":
    run_service("agents", AgentsSettings, build)
