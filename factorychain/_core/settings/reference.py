"""Every variable in words, for `factorychain config` and the documentation."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args, get_origin

from pydantic import SecretStr, ValidationError
from pydantic.fields import FieldInfo

from factorychain._core.settings.services import (
    AgentsSettings,
    BridgeSettings,
    CommandSettings,
    EmitterSettings,
    EngineSettings,
)
from factorychain._core.settings.shared import PREFIX, CommonSettings, Documented

SERVICES: dict[str, type[CommonSettings]] = {
    "engine": EngineSettings,
    "agents": AgentsSettings,
    "emitter": EmitterSettings,
    "bridge": BridgeSettings,
}
_READERS: dict[str, type[Documented]] = {**SERVICES, "command": CommandSettings}

_UNITS = {"_bytes": "bytes", "_per_s": "1/s", "_ms": "ms", "_s": "s"}
_TYPES = {
    bool: "true or false",
    int: "integer",
    float: "number",
    str: "text",
    Path: "path",
    SecretStr: "text",
}
_SIGNS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}


@dataclass(frozen=True, slots=True)
class SettingDoc:
    """One variable. `defaults` maps each service that reads it to its default, as written."""

    variable: str
    type: str
    unit: str
    meaning: str
    bounds: str
    defaults: dict[str, str] = field(default_factory=dict)

    @property
    def services(self) -> tuple[str, ...]:
        return tuple(self.defaults)

    @property
    def default(self) -> str:
        """The default; where services differ, each with its name."""
        if len(set(self.defaults.values())) == 1:
            return next(iter(self.defaults.values()))
        return ", ".join(f"{service} {value}" for service, value in self.defaults.items())


def all_settings() -> list[SettingDoc]:
    """Every variable that a service or the command reads, by name."""
    found: dict[str, SettingDoc] = {}
    for service, settings in _READERS.items():
        for name, info in settings.model_fields.items():
            variable = f"{PREFIX}{name.upper()}"
            doc = found.setdefault(variable, _doc(variable, name, info))
            doc.defaults[service] = _written(info.default)
    return [found[variable] for variable in sorted(found)]


def settings_problem(error: ValidationError) -> str:
    """What is wrong with the environment, a line for each variable, with how to mend it."""
    return "\n".join(
        _problem(str(each["loc"][0]) if each["loc"] else "", each["msg"]) for each in error.errors()
    )


def _problem(name: str, message: str) -> str:
    text = message.removeprefix("Value error, ")
    return f"{PREFIX}{name.upper()}: {text}" if name else text


def _doc(variable: str, name: str, info: FieldInfo) -> SettingDoc:
    words = f"{name}_"
    unit = next((unit for mark, unit in _UNITS.items() if f"{mark}_" in words), "")
    return SettingDoc(variable, _type(info), unit, info.description or "", _bounds(info))


def _type(info: FieldInfo) -> str:
    annotation = info.annotation
    if get_origin(annotation) is Literal:
        return "one of " + ", ".join(str(each) for each in get_args(annotation))
    if get_origin(annotation) is tuple:
        return "list"
    options = [each for each in get_args(annotation) if each is not type(None)] or [annotation]
    return _TYPES.get(options[0], "text") if isinstance(options[0], type) else "text"


def _bounds(info: FieldInfo) -> str:
    found = []
    for constraint in info.metadata:
        for name, sign in _SIGNS.items():
            value = getattr(constraint, name, None)
            if value is not None:
                found.append(f"{sign} {value}")
    return ", ".join(found)


def _written(default: object) -> str:
    if default is None:
        return ""
    if isinstance(default, tuple):
        return ",".join(str(each) for each in default)
    return str(default).lower() if isinstance(default, bool) else str(default)
