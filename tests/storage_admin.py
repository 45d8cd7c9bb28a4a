"""What an operator can do to buckets and to the log behind the services' backs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import orjson
from nats.aio.client import Client

from tests.nats_fixture import ADMIN_PASSWORD, NatsServer


class StorageAdmin:
    """Calls of the JetStream API about buckets, or with another prefix about other streams."""

    def __init__(self, client: Client, prefix: str = "KV_") -> None:
        self._client = client
        self._prefix = prefix

    async def delete(self, bucket: str) -> None:
        await self._call("STREAM.DELETE", bucket)

    async def purge(self, bucket: str, keep: int = 0) -> None:
        """Of everything but the newest messages."""
        await self._call("STREAM.PURGE", bucket, {"keep": keep})

    async def purge_of(self, bucket: str, keys: str) -> None:
        """Only what is stored under these keys (`*` a token, `>` the rest)."""
        await self._call("STREAM.PURGE", bucket, {"filter": f"$KV.{bucket}.{keys}"})

    async def drop_older(self, bucket: str, max_age_s: float) -> None:
        """Let the bucket keep nothing for longer."""
        info = await self._call("STREAM.INFO", bucket)
        await self._call(
            "STREAM.UPDATE", bucket, {**info["config"], "max_age": int(max_age_s * 1e9)}
        )

    async def exists(self, bucket: str) -> bool:
        return "error" not in await self._answer("STREAM.INFO", bucket, {})

    async def leave_room(self, bucket: str, further_bytes: int | None) -> None:
        """Let the bucket grow by so much; None: as it likes."""
        info = await self._call("STREAM.INFO", bucket)
        most = -1 if further_bytes is None else info["state"]["bytes"] + further_bytes
        await self._call("STREAM.UPDATE", bucket, {**info["config"], "max_bytes": most})

    async def _call(self, call: str, bucket: str, body: dict[str, Any] | None = None) -> Any:
        answer = await self._answer(call, bucket, body or {})
        assert "error" not in answer, answer
        return answer

    async def _answer(self, call: str, bucket: str, body: dict[str, Any]) -> Any:
        payload = orjson.dumps(body) if body else b""
        reply = await self._client.request(
            f"$JS.API.{call}.{self._prefix}{bucket}", payload, timeout=30
        )
        return orjson.loads(reply.data)


@asynccontextmanager
async def storage_admin(nats: NatsServer, prefix: str = "KV_") -> AsyncIterator[StorageAdmin]:
    client = Client()
    await client.connect(nats.url, user="admin", password=ADMIN_PASSWORD)
    try:
        yield StorageAdmin(client, prefix)
    finally:
        await client.close()
