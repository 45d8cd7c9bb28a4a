"""Arguments of a tool whose JSON Schema comes from elsewhere.

What is not understood of the schema is left to the server, which checks again.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, cast

import orjson
from jsonschema import SchemaError
from jsonschema.validators import validator_for
from referencing import Registry
from referencing.exceptions import Unresolvable

from factorychain._instance.signature import BadArguments
from factorychain.input import Json

if TYPE_CHECKING:
    from jsonschema.protocols import Validator

_TEXT_MAX_CHARS: Final = 500
_NOT_UNDERSTOOD: Final = (SchemaError, Unresolvable, RecursionError, re.error)


class SchemaSignature:
    """What a tool takes, by its schema alone."""

    context_name: Final = ""

    def __init__(self, tool: str, schema: Mapping[str, Any]) -> None:
        self._tool = tool
        self.schema: dict[str, Json] = dict(schema)
        self._validator: Validator | None = None

    def named(self, args: tuple[object, ...], kwargs: Mapping[str, object]) -> dict[str, object]:
        """The arguments by name: a schema has no order."""
        if args:
            raise BadArguments("takes its arguments by name")
        return dict(kwargs)

    def validated(self, arguments: Mapping[str, object]) -> dict[str, object]:
        """The arguments, if they fit.

        Raises:
            BadArguments: they do not.
        """
        try:
            found = next(self._checking().iter_errors(cast("Any", arguments)), None)
        except _NOT_UNDERSTOOD:
            found = None
        if found is not None:
            path = found.json_path.removeprefix("$").removeprefix(".")
            text = f"{path}: {found.message}" if path else found.message
            raise BadArguments(text[:_TEXT_MAX_CHARS])
        return dict(arguments)

    def validated_json(self, text: str) -> dict[str, object]:
        """As `validated`, of JSON text; empty text means no arguments."""
        try:
            found = orjson.loads(text or "{}")
        except orjson.JSONDecodeError as error:
            raise BadArguments(f"Invalid JSON: {error}") from error
        if not isinstance(found, dict):
            raise BadArguments("must be a JSON object")
        return self.validated(found)

    def _checking(self) -> Validator:
        if self._validator is None:
            kind = validator_for(self.schema)
            kind.check_schema(self.schema)
            # An empty registry: references lead to nowhere but the schema itself.
            self._validator = cast("Any", kind)(self.schema, registry=Registry())
        assert self._validator is not None, "just made"
        return self._validator
