"""Whether an answer fits the JSON Schema (draft 2020-12) that it was asked for with.

Invariant: schema and answer may be anybody's, so a check takes a bounded number of steps, matches patterns
in linear time and fetches nothing. Keywords whose cost cannot be bounded so are refused when the question is
asked; `format` says something to clients and is not checked here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from functools import lru_cache
from typing import Any, Final, TypeAlias

import orjson
from jsonschema import Draft202012Validator, SchemaError, ValidationError
from jsonschema.validators import extend
from pydantic_core import SchemaError as PatternError
from pydantic_core import SchemaValidator, core_schema
from pydantic_core import ValidationError as NoMatch
from referencing import Registry
from referencing.exceptions import Unresolvable

SCHEMA_MAX_BYTES: Final = 16 * 1024
STEPS_MAX: Final = 40_000
"""About a tenth of a second of processor time."""
_PER_STEP: Final = 8
_TEXT_MAX_CHARS: Final = 500
_REFUSED: Final = frozenset({"patternProperties", "unevaluatedItems", "unevaluatedProperties"})

_Keyword: TypeAlias = Callable[[Any, Any, Any, Any], Iterator[ValidationError] | None]

_steps: ContextVar[list[int]] = ContextVar("factorychain_schema_steps")


class BadSchema(ValueError):
    """The schema is none, or one that is not supported; the text says where and why."""


class _TooMuch(Exception):
    """The check takes more steps than one may."""


def check_schema(schema_json: str) -> None:
    """Whether answers can be checked against this.

    Raises:
        BadSchema: they cannot.
    """
    if not schema_json:
        return
    if len(schema_json.encode()) > SCHEMA_MAX_BYTES:
        raise BadSchema(f"it may have {SCHEMA_MAX_BYTES} bytes")
    try:
        schema = orjson.loads(schema_json)
        if not isinstance(schema, dict):
            raise BadSchema("it must be a JSON object")
        _check_supported(schema)
        Draft202012Validator.check_schema(schema)
    except orjson.JSONDecodeError as error:
        raise BadSchema("it is not JSON") from error
    except SchemaError as error:
        raise BadSchema(_text(error)) from error
    except RecursionError as error:
        raise BadSchema("it is nested too deeply") from error


def problem_of(schema_json: str, value_json: str) -> str:
    """What is wrong with an answer; empty if it fits. An empty schema takes anything that is JSON."""
    try:
        value: object = orjson.loads(value_json)
    except orjson.JSONDecodeError:
        return "must be JSON"
    if not schema_json:
        return ""
    _steps.set([STEPS_MAX])
    try:
        validator = _Bounded(orjson.loads(schema_json), registry=Registry())
        found = next(validator.iter_errors(value), None)
    except (_TooMuch, RecursionError):
        return "cannot be checked against the schema in reasonable time; make it smaller"
    except Unresolvable as error:
        return f"cannot be checked: the schema refers to what is not in it ({error})"
    return "" if found is None else _text(found)


def _text(error: ValidationError | SchemaError) -> str:
    path = error.json_path.removeprefix("$").removeprefix(".")
    text = f"{path}: {error.message}" if path else error.message
    return text if len(text) <= _TEXT_MAX_CHARS else f"{text[:_TEXT_MAX_CHARS]}…"


def _check_supported(schema: object) -> None:
    if isinstance(schema, list):
        for each in schema:
            _check_supported(each)
    elif isinstance(schema, dict):
        for keyword, value in schema.items():
            _check_keyword(keyword, value)
            _check_supported(value)


def _check_keyword(keyword: str, value: object) -> None:
    if keyword in _REFUSED and isinstance(value, dict | bool):
        raise BadSchema(f"{keyword} is not supported; use additionalProperties")
    if keyword in ("$ref", "$dynamicRef") and isinstance(value, str) and not value.startswith("#"):
        raise BadSchema(
            f"{keyword} may refer to what is in the schema, by #/…; {value!r} is elsewhere"
        )
    if keyword == "pattern" and isinstance(value, str):
        try:
            _pattern(value)
        except PatternError as error:
            text = f"pattern {value!r} is none, or looks around or back, which is not supported"
            raise BadSchema(text) from error


# --- keywords with a price -------------------------------------------------------------------


def _size(value: object) -> int:
    return len(value) // _PER_STEP if isinstance(value, str | list | dict) else 0


def _priced(keyword: _Keyword) -> _Keyword:
    def checked(
        validator: Any, value: Any, instance: Any, schema: Any
    ) -> Iterator[ValidationError]:
        left = _steps.get()
        left[0] -= 1 + _size(value) + _size(instance)
        if left[0] < 0:
            raise _TooMuch
        yield from keyword(validator, value, instance, schema) or ()

    return checked


@lru_cache(maxsize=256)
def _pattern(pattern: str) -> SchemaValidator:
    return SchemaValidator(core_schema.str_schema(pattern=pattern, regex_engine="rust-regex"))


def _matches(
    validator: Any, pattern: str, instance: object, schema: object
) -> Iterator[ValidationError]:
    del validator, schema
    if isinstance(instance, str):
        try:
            _pattern(pattern).validate_python(instance)
        except NoMatch:
            yield ValidationError(f"{instance!r} does not match {pattern!r}")


def _unique(
    validator: Any, wanted: bool, instance: object, schema: object
) -> Iterator[ValidationError]:
    del validator, schema
    if wanted and isinstance(instance, list):
        forms = {orjson.dumps(each, option=orjson.OPT_SORT_KEYS) for each in instance}
        if len(forms) < len(instance):
            yield ValidationError("has the same item twice")


def _refused(
    validator: Any, value: object, instance: object, schema: object
) -> Iterator[ValidationError]:
    del validator, value, instance, schema
    raise _TooMuch  # `check_schema` lets none of these through


def _keywords() -> Mapping[str, _Keyword]:
    known: dict[str, Any] = dict(Draft202012Validator.VALIDATORS)
    changed = known | {"pattern": _matches, "uniqueItems": _unique}
    priced = {name: _priced(each) for name, each in changed.items()}
    return priced | dict.fromkeys(_REFUSED, _refused)


_extended: Callable[..., Any] = extend
_Bounded: Final[Any] = _extended(Draft202012Validator, dict(_keywords()))
