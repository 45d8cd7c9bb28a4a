"""Configuration from `FACTORYCHAIN_*`, one typed class for each concern, composed for each service.

Invariants: every field says what it means, has a unit in its name where it has one, bounds and a
default; a value that is wrong is refused at start with the name of its variable; the chain's own
secrets are only ever given as the path of a file.
"""

from factorychain._core.settings.gateway import GatewaySettings
from factorychain._core.settings.reference import SettingDoc, all_settings, settings_problem
from factorychain._core.settings.services import (
    AgentsSettings,
    BridgeSettings,
    CommandSettings,
    EmitterSettings,
    EngineSettings,
)
from factorychain._core.settings.shared import (
    PREFIX,
    CommonSettings,
    Misconfigured,
    NatsSettings,
    TransportSettings,
    TxnTokenSettings,
    UserTokenSettings,
)

__all__ = [
    "PREFIX",
    "AgentsSettings",
    "BridgeSettings",
    "CommandSettings",
    "CommonSettings",
    "EmitterSettings",
    "EngineSettings",
    "GatewaySettings",
    "Misconfigured",
    "NatsSettings",
    "SettingDoc",
    "TransportSettings",
    "TxnTokenSettings",
    "UserTokenSettings",
    "all_settings",
    "settings_problem",
]
