"""Everything that passes through a chain's NATS: what is stored, live, asked and answered."""

from __future__ import annotations

import base64
import json
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import NamedTuple

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from factorychain._core.nats_endpoint import inbox_prefix
from factorychain._core.nats_permissions import BRIDGE, ENGINE
from tests.e2e.chain import Chain
from tests.e2e.residue import CANARY
from tests.waiting import until

_NAME, _PASSWORD = "everybody-hears", "password-of-one-who-overhears"


class Message(NamedTuple):
    """One that has a canary somewhere."""

    subject: str
    about: frozenset[str]
    """What its own subject, or that of the stored message in it, is made of."""
    canaries: frozenset[str]
    """In its subject, its headers and its payload."""


class Overheard:
    """What was said while somebody listened."""

    def __init__(self) -> None:
        self.kinds: Counter[str] = Counter()
        """Of all messages, by the first token of the subject."""
        self.messages: list[Message] = []

    async def take(self, message: Msg) -> None:
        self.kinds[message.subject.partition(".")[0]] += 1
        headers = message.headers or {}
        inner_subject, inner = _inside(message.data)
        subjects = (message.subject, headers.get("Nats-Subject", ""), inner_subject)
        texts = (*subjects, str(headers), message.data.decode("utf-8", "replace"), inner)
        if canaries := frozenset(CANARY.findall("\n".join(texts))):
            about = frozenset(token for subject in subjects for token in subject.split("."))
            self.messages.append(Message(message.subject, about, canaries))

    def check(self, owners: Mapping[str, str], least: int) -> None:
        """Every canary is only where the subject names its owner, and in no subject.

        Args:
            owners: user keys by canary.
            least: of how many at least something was said, in each kind of message.
        """
        for each in self.messages:
            assert not CANARY.search(each.subject + " ".join(each.about)), each
            own = {canary for canary, ukey in owners.items() if ukey in each.about}
            assert each.canaries <= own, each
        for kind in ("ev", "live", "$KV"):  # else it was not listened to
            seen = [m.canaries for m in self.messages if m.subject.startswith(f"{kind}.")]
            assert len(frozenset[str]().union(*seen)) >= least, kind
        assert self.kinds.keys() >= {"$JS", inbox_prefix(ENGINE), inbox_prefix(BRIDGE)}, self.kinds


def _inside(payload: bytes) -> tuple[str, str]:
    """Subject and content of a stored message that a leader has answered with (in base64)."""
    with suppress(ValueError, KeyError, TypeError):
        stored = json.loads(payload)["message"]
        parts = (base64.b64decode(stored.get(each, "")) for each in ("hdrs", "data"))
        return stored["subject"], b"\n".join(parts).decode("utf-8", "replace")
    return "", ""


@asynccontextmanager
async def overhearing(chain: Chain) -> AsyncIterator[Overheard]:
    """Listens to everything for as long as it is entered; afterwards all of it was heard."""
    config = chain.data.nats_config
    configured = json.loads(config.read_text())
    users = configured["authorization"]["users"]
    if _NAME not in {each["user"] for each in users}:
        permissions = {"publish": {"deny": [">"]}, "subscribe": {"allow": [">"]}}
        users.append({"user": _NAME, "password": _PASSWORD, "permissions": permissions})
        config.write_text(json.dumps(configured))
        os.kill(chain.pid("nats"), signal.SIGHUP)
    heard = Overheard()
    client = await until(lambda: _connected(chain.state.nats))
    try:
        await client.subscribe(">", cb=heard.take, pending_msgs_limit=-1, pending_bytes_limit=-1)
        await client.flush()
        yield heard
        await client.drain()
    finally:
        await client.close()


async def _connected(url: str) -> Client | None:
    """None: the server does not know the user yet."""
    client = Client()
    try:
        await client.connect(url, user=_NAME, password=_PASSWORD, allow_reconnect=False)
    except (NatsError, OSError):
        await client.close()
        return None
    return client
