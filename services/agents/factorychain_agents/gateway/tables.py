"""Reading the operator's TOML files: every problem is told with the file and the place in it."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Final, TypeAlias

from yarl import URL

from factorychain._core.settings import Misconfigured
from factorychain_agents.gateway.secret import Secret, secret_file, secret_text

Table: TypeAlias = Mapping[str, object]
_MAX_BYTES: Final = 1024 * 1024
_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")


def read_tables(path: Path, variable: str) -> dict[str, Table]:
    """The tables of a file, by name.

    Raises:
        Misconfigured: it cannot be read, or is no TOML of tables.
    """
    try:
        text = path.read_bytes()[:_MAX_BYTES].decode("utf-8")
        found = tomllib.loads(text)
    except (OSError, ValueError) as error:
        raise Misconfigured(f"{variable}: {path} cannot be read ({error})") from error
    for name, table in found.items():
        if not isinstance(table, dict) or not _NAME.fullmatch(name):
            raise Misconfigured(
                f"{variable}: {path}: {name!r} is no table with a name of letters, digits, `-` and `_`;"
                " begin each server with a line such as [github]"
            )
    return found


class Fields:
    """One table, read field by field. What nobody has asked for at the end is a misspelt name."""

    def __init__(self, table: Table, where: str) -> None:
        self.where = where
        self._left = dict(table)

    def text(self, name: str, otherwise: str = "") -> str:
        """A text.

        Raises:
            Misconfigured: it is something else.
        """
        found = self._left.pop(name, otherwise)
        if not isinstance(found, str):
            raise Misconfigured(f"{self.where}: {name} must be a text")
        return found

    def flag(self, name: str, *, otherwise: bool) -> bool:
        """A truth value."""
        found = self._left.pop(name, otherwise)
        if not isinstance(found, bool):
            raise Misconfigured(f"{self.where}: {name} must be true or false")
        return found

    def texts(self, name: str) -> tuple[str, ...]:
        """A list of texts; empty if it is not there."""
        found = self._left.pop(name, [])
        if not isinstance(found, list):
            raise Misconfigured(f"{self.where}: {name} must be a list of texts")
        return tuple(_text(each, f"{self.where}: {name}") for each in found)

    def table(self, name: str) -> Table:
        """A table; empty if it is not there."""
        return _table(self._left.pop(name, {}), f"{self.where}: {name}")

    def url(self, name: str, otherwise: str = "") -> URL:
        """Where a server is."""
        return base_url(self.text(name, otherwise), f"{self.where}: {name}")

    def secret(self, name: str) -> Secret:
        """A secret, or the file that it is in; empty if it is not there."""
        found = self._left.pop(name, None)
        return Secret("") if found is None else secret_in(found, f"{self.where}: {name}")

    def finish(self) -> None:
        """Nothing may be left.

        Raises:
            Misconfigured: something is.
        """
        if self._left:
            raise Misconfigured(f"{self.where}: {', '.join(sorted(self._left))} means nothing here")


def secret_in(found: object, where: str) -> Secret:
    """A secret as files have it: a text, or `{ file = "…" }`.

    Raises:
        Misconfigured: it is neither, or cannot be read.
    """
    if isinstance(found, str):
        return secret_text(found, where)
    fields = Fields(_table(found, where), where)
    path = fields.text("file")
    fields.finish()
    return secret_file(Path(path), where)


def secrets_in(found: Table, where: str) -> dict[str, Secret]:
    """Secrets by name."""
    return {name: secret_in(each, f"{where}.{name}") for name, each in found.items()}


def base_url(text: str, where: str) -> URL:
    """Where a server is, without a slash at its end.

    Raises:
        Misconfigured: it is no address of a server.
    """
    try:
        url = URL(text.rstrip("/"))
    except ValueError as error:
        raise Misconfigured(f"{where}: {text!r} is no URL ({error})") from error
    plain = url.query_string == "" and url.fragment == "" and url.user is None
    if url.scheme not in ("http", "https") or not url.host or not plain:
        raise Misconfigured(f"{where}: expected http(s)://host/path, found {text!r}")
    return url


def _text(found: object, where: str) -> str:
    if not isinstance(found, str):
        raise Misconfigured(f"{where}: {found!r} is no text")
    return found


def _table(found: object, where: str) -> Table:
    if not isinstance(found, dict):
        raise Misconfigured(f"{where} must be a table")
    return found
