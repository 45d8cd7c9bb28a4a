"""Writes the tables in `docs/*.md` that come from the code, or checks them.

A table stands between `<!-- generated: NAME -->` and `<!-- end -->` and is never edited by hand.
Contracts come from the option on each RPC, errors from `factorychain.errors`, events from their
descriptors, configuration from the settings classes: what is enforced is what is written.
"""

from __future__ import annotations

import argparse
import inspect
import re
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import grpc_tools
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from grpc_tools import protoc

from factorychain import errors
from factorychain._core.contracts import FactoryLayerContract, all_contracts
from factorychain._core.event_kinds import ENDINGS, criticality_name
from factorychain._core.settings import SettingDoc, all_settings
from factorychain.types.v1.event_pb2 import Event

DOCS = Path(__file__).resolve().parent
PROTOS = DOCS.parent / "protos"
LAYERS = ("engine", "agents", "emitter", "bridge")
_BLOCK = re.compile(r"(<!-- generated: ([a-z-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
_JSON_SUFFIX = "_json"


def main() -> int:
    """Write the tables or, with `--check`, exit 1 if one is not what the code says."""
    parser = argparse.ArgumentParser(description="Write the tables in docs/ that come from code.")
    parser.add_argument("--check", action="store_true", help="change nothing, exit 1 on a drift")
    check = parser.parse_args().check
    stale = [(path, text) for path, text in rendered() if path.read_text("utf-8") != text]
    for path, text in stale:
        if check:
            where = path.relative_to(DOCS.parent)
            print(f"{where} is out of date; run: make docs", file=sys.stderr)
        else:
            path.write_text(text, "utf-8")
    return 1 if check and stale else 0


def rendered() -> Iterator[tuple[Path, str]]:
    """Each document that has tables, as it should be."""
    said = proto_comments()
    tables: Mapping[str, Callable[[], str]] = {
        "contracts": lambda: "\n\n".join(_service(layer, said) for layer in LAYERS),
        "errors": _errors,
        "events": lambda: _events(said),
        "configuration": _configuration,
    }
    for path in sorted(DOCS.glob("*.md")):
        text = path.read_text("utf-8")
        if _BLOCK.search(text):
            yield path, _BLOCK.sub(lambda m: f"{m[1]}\n{tables[m[2]]()}\n\n{m[3]}", text)


# --- contracts -------------------------------------------------------------------------------


def _service(layer: str, said: Mapping[str, str]) -> str:
    """One service: what can be measured of its RPCs, then what each needs and promises."""
    own = [each for each in all_contracts() if each.layer == layer]
    table = _table(
        ("RPC", "credential", "p50", "p99", "repeat", "errors"), [_measured(each) for each in own]
    )
    promises = "\n".join(_promised(each, said) for each in own)
    service = own[0].service
    return f"## {service.rpartition('.')[2]}\n\n{said[service]}\n\n{table}\n\n{promises}"


def _measured(contract: FactoryLayerContract) -> tuple[str, ...]:
    stream = "⇄" if contract.client_streaming else "→" if contract.server_streaming else ""
    bounds = contract.bounds_ms
    return (
        f"`{contract.method}` {stream}".strip(),
        contract.credential.name,
        *(f"{bounds[name]:g} ms" if name in bounds else "" for name in ("p50", "p99")),
        "safe" if contract.repeat_safe else "",
        ", ".join(sorted(contract.errors)),
    )


def _promised(contract: FactoryLayerContract, said: Mapping[str, str]) -> str:
    text = f"- **{contract.method}**: {said[f'{contract.service}.{contract.method}']}"
    for label, sentences in (("Needs", contract.requires), ("Promises", contract.guarantees)):
        if sentences:
            text += f" {label}: {'; '.join(sentences)}."
    return text


def _errors() -> str:
    """Every reason of the tree but those that only an agent's author raises."""
    authors = (errors.AgentError, errors.ToolError)
    kinds = [
        each
        for each in errors.FactoryChainError.__subclasses__()
        if each.__module__ == errors.__name__ and each not in authors
    ]
    rows = [
        (f"`{each.default_reason}`", each.default_code.value, _sentence(inspect.getdoc(each)))
        for each in kinds
    ]
    return _table(("reason", "code", "when"), rows)


def _sentence(text: str | None) -> str:
    return " ".join((text or "").split("\n\n")[0].split())


# --- events ----------------------------------------------------------------------------------


def _events(said: Mapping[str, str]) -> str:
    fields = Event.DESCRIPTOR.oneofs_by_name["event"].fields
    rows = [
        (
            f"`{each.name}`",
            criticality_name(each.name).replace("_", "-"),
            ", ".join(_shown(part) for part in _message(each).fields),
            said[f"{Event.DESCRIPTOR.full_name}.{each.name}"],
        )
        for each in sorted(fields, key=lambda each: (each.name not in _FIVE, each.number))
    ]
    return _table(("type", "criticality", "data", "meaning"), rows)


_FIVE = ENDINGS | {"agent_started", "agent_thinking", "tool_executing", "tool_completed"}


def _message(field: FieldDescriptor) -> Descriptor:
    assert field.message_type is not None, "every kind of event has a message of its own"
    return field.message_type


def _shown(field: FieldDescriptor) -> str:
    """A field as JSON has it; one that may be absent with a question mark."""
    name = field.name.removesuffix(_JSON_SUFFIX)
    optional = field.has_presence and field.name != "usage" and not field.is_repeated
    return f"`{name}`{'?' if optional else ''}"


# --- configuration ---------------------------------------------------------------------------


def _configuration() -> str:
    """One table for each group of services that read the same variables."""
    groups: dict[tuple[str, ...], list[SettingDoc]] = {}
    for doc in all_settings():
        groups.setdefault(doc.services, []).append(doc)
    order = (*LAYERS, "command")
    ordered = sorted(groups.items(), key=lambda item: (-len(item[0]), order.index(item[0][0])))
    return "\n\n".join(_settings(services, docs) for services, docs in ordered)


def _settings(services: Sequence[str], docs: Iterable[SettingDoc]) -> str:
    *others, last = services
    named = f"{', '.join(others)} and {last}" if others else last
    named = "the `factorychain` command" if last == "command" else named
    who = "every service" if len(services) == len(LAYERS) else named
    rows = [
        (f"`{doc.variable}`", doc.meaning, _code(doc.default), doc.unit, _values(doc))
        for doc in docs
    ]
    return f"## Read by {who}\n\n" + _table(
        ("variable", "meaning", "default", "unit", "values"), rows
    )


def _values(doc: SettingDoc) -> str:
    return doc.bounds or (doc.type if doc.type not in ("text", "list") else "")


def _code(text: str) -> str:
    return f"`{text}`" if text else ""


# --- parts -----------------------------------------------------------------------------------


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(_cell(each) for each in line) + " |" for line in lines)


def _cell(text: str) -> str:
    return text.replace("|", r"\|").replace("\n", " ")


def proto_comments() -> dict[str, str]:
    """The comment on each service, method and field, by full name."""
    found: dict[str, str] = {}
    for file in _compiled().file:
        for location in file.source_code_info.location:
            name = _named(file, tuple(location.path))
            if name and location.leading_comments:
                found[name] = " ".join(location.leading_comments.split())
    return found


def _compiled() -> FileDescriptorSet:
    """The protos with their comments, which generated code does not hold."""
    builtin = Path(grpc_tools.__file__).parent / "_proto"
    sources = [str(path) for path in sorted(PROTOS.glob("factorychain/*/v1/*.proto"))]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "protos.binpb"
        flags = ["--include_source_info", f"--descriptor_set_out={out}"]
        if protoc.main(["protoc", f"-I{PROTOS}", f"-I{builtin}", *flags, *sources]) != 0:
            raise SystemExit("protoc cannot read the protos; its message is above")
        return FileDescriptorSet.FromString(out.read_bytes())


def _named(file: FileDescriptorProto, path: tuple[int, ...]) -> str:
    """The full name of what a location is about: numbers are those of descriptor.proto's fields."""
    match path:
        case (4, message, 2, field):
            owner = file.message_type[message]
            return f"{file.package}.{owner.name}.{owner.field[field].name}"
        case (6, service):
            return f"{file.package}.{file.service[service].name}"
        case (6, service, 2, method):
            found = file.service[service]
            return f"{file.package}.{found.name}.{found.method[method].name}"
        case _:
            return ""


if __name__ == "__main__":
    sys.exit(main())
