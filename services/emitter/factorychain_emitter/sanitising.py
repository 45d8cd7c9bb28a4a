"""What a user gets to see of a text: no control characters, no invalid UTF-8, no secrets.

Invariant: what leaves is valid UTF-8 and valid JSON, holds no character that moves a terminal's
cursor or turns text around, and no secret, however it was escaped in JSON.
"""

from __future__ import annotations

import re
from functools import cache

import orjson
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message

from factorychain.types.v1 import event_pb2
from factorychain.types.v1.event_pb2 import Event
from factorychain_emitter.redaction import Scanner
from factorychain_emitter.rejection import Rejected

JSON_DEPTH_MAX = 100

# C0 but tab and line ends, DEL and C1, bidirectional overrides, noncharacters (Unicode TR 36).
_CONTROL = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ufeff\ufffe\uffff]"
)

Json = dict[str, "Json"] | list["Json"] | str | int | float | bool | None


def without_control(text: str) -> str:
    """The text without control characters; tabs and line ends stay."""
    return text if text.isprintable() else _CONTROL.sub("", text)


class Sanitiser:
    """Cleans the texts of one run and remembers what it took out."""

    def __init__(self, scanner: Scanner) -> None:
        self._scanner = scanner
        self.redacted: list[str] = []
        """Names of the secrets that were taken out since the owner looked last."""

    def text(self, text: str) -> str:
        """A whole text, cleaned."""
        cleaned, names = self._scanner.redact(without_control(text))
        if names:
            self.redacted += names
        return cleaned

    def json(self, raw: str, *, must_be_object: bool = False) -> str:
        """A JSON document, cleaned inside every string and key; the same characters if it is clean.

        Raises:
            Rejected: it is no JSON, nested too deeply, or not an object where one is needed.
        """
        value = parse_json(raw)
        if must_be_object and not isinstance(value, dict):
            raise Rejected("INVALID_FIELD", "expected a JSON object")
        if self._is_clean(raw):
            return raw
        cleaned = self._cleaned(value, 0)
        return raw if cleaned == value else orjson.dumps(cleaned).decode()

    def _is_clean(self, raw: str) -> bool:
        # An escape may hide anything: \\u0041KIA is AKIA, and :\\/\\/ is ://.
        if "\\" in raw and ("\\u" in raw or "\\/" in raw):
            return False
        return without_control(raw) == raw and not self._scanner.suspicions(raw)

    def _cleaned(self, value: Json, depth: int) -> Json:
        if depth > JSON_DEPTH_MAX:
            raise Rejected("INVALID_FIELD", f"JSON is nested deeper than {JSON_DEPTH_MAX}")
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, list):
            return [self._cleaned(each, depth + 1) for each in value]
        if isinstance(value, dict):
            return {self.text(key): self._pair(key, each, depth + 1) for key, each in value.items()}
        return value

    def _pair(self, key: str, value: Json, depth: int) -> Json:
        """A value beside its key, because the key may be what makes it a secret."""
        if isinstance(value, str):
            before = f"{key}: "
            cleaned, names = self._scanner.redact(before + without_control(value))
            if names and cleaned.startswith(before):
                self.redacted += names
                return cleaned[len(before) :]
        return self._cleaned(value, depth)


def parse_json(raw: str) -> Json:
    """The value of a JSON document; raises `Rejected` if it is none."""
    try:
        value: Json = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise Rejected("INVALID_FIELD", f"not valid JSON at character {error.pos}") from None
    return value


# --- invalid UTF-8 -----------------------------------------------------------------------------


def readable(raw: bytes) -> Event:
    """The event in the bytes, with U+FFFD for what is no UTF-8.

    Raises:
        Rejected: the bytes are no event at all.
    """
    try:
        return Event.FromString(raw)
    except DecodeError:
        pass
    try:
        twin = _twin()()
        twin.MergeFromString(raw)
        return Event.FromString(_mended(twin).SerializeToString())
    except DecodeError:
        raise Rejected(
            "MALFORMED_EVENT", "the bytes are no factorychain.types.v1.Event; serialize one"
        ) from None


@cache
def _twin() -> type[Message]:
    """`Event` with bytes for strings: the same on the wire, and readable whatever is in them."""
    pool = descriptor_pool.DescriptorPool()
    for dependency in event_pb2.DESCRIPTOR.dependencies:
        pool.AddSerializedFile(dependency.serialized_pb)
    file = descriptor_pb2.FileDescriptorProto.FromString(event_pb2.DESCRIPTOR.serialized_pb)
    for message in file.message_type:
        for field in message.field:
            if field.type == descriptor_pb2.FieldDescriptorProto.TYPE_STRING:
                field.type = descriptor_pb2.FieldDescriptorProto.TYPE_BYTES
    pool.AddSerializedFile(file.SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(Event.DESCRIPTOR.full_name))


def _mended(message: Message) -> Message:
    for field, value in message.ListFields():
        if field.type == FieldDescriptor.TYPE_BYTES:
            if field.is_repeated:
                value[:] = [_utf8(each) for each in value]
            else:
                setattr(message, field.name, _utf8(value))
        elif field.type == FieldDescriptor.TYPE_MESSAGE:
            for each in value if field.is_repeated else (value,):
                _mended(each)
    return message


def _utf8(raw: bytes) -> bytes:
    return raw.decode("utf-8", "replace").encode()
