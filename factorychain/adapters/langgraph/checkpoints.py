"""Checkpoints that outlive the process: in memory while a run works, in the thread's blobs in between.

Invariant: what is stored is enough to go on from the latest checkpoint, and no more: its ancestors only
where a channel is rebuilt from them, those of subgraphs only where the graph will look for them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any, Final, TypeAlias, cast

import ormsgpack
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import ChannelVersions, Checkpoint, CheckpointMetadata
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from factorychain.adapters.large_blob import Blobs, LargeBlob

_VERSION: Final = 1
_TASK: Final = ":"
"""In a namespace, before the id of a task: a subgraph's that is made anew for each of them."""

_Typed: TypeAlias = tuple[str, bytes]


def blob_name(agent: str) -> str:
    """Where an agent's checkpoints are in a thread: those of another agent there are others."""
    return f"langgraph:{hashlib.blake2b(agent.encode(), digest_size=12).hexdigest()}"


class ThreadSaver(InMemorySaver):
    """The checkpoints of one thread for one run."""

    def __init__(
        self, blobs: Blobs, agent: str, thread: str, allowed: Iterable[tuple[str, ...]]
    ) -> None:
        """Empty until `restore`.

        Args:
            blobs: the thread's.
            agent: whose checkpoints; with its path, inside of others.
            thread: `thread_id` in the graph's configuration; others are forgotten with the run.
            allowed: (module, name) of the types that are made again from stored bytes, besides plain
                data and messages. Nothing else is, whatever the bytes say.
        """
        super().__init__(serde=JsonPlusSerializer(allowed_msgpack_modules=sorted(allowed)))
        self._blob = LargeBlob(blobs, blob_name(agent))
        self._thread = thread
        self._changed = False

    @property
    def is_empty(self) -> bool:
        """Nothing is kept of the conversation."""
        return not self.storage.get(self._thread)

    async def restore(self) -> None:
        """Read what the last run left. What cannot be read counts as nothing."""
        found = await self._blob.load()
        if found is None:
            return
        kept = ormsgpack.unpackb(found, option=ormsgpack.OPT_NON_STR_KEYS)
        if not isinstance(kept, dict) or kept.get("v") != _VERSION:
            return
        thread = self._thread
        for ns, id_, checkpoint, metadata, parent in kept["checkpoints"]:
            entry = (_typed(checkpoint), _typed(metadata), parent)
            self.storage[thread][ns][id_] = entry
        for ns, channel, version, value in kept["values"]:
            self.blobs[thread, ns, channel, version] = _typed(value)
        for ns, id_, task, index, channel, value, path in kept["writes"]:
            written = (task, channel, _typed(value), path)
            self.writes[thread, ns, id_][task, index] = written

    async def keep(self) -> None:
        """Store what the next run needs, if it is something new.

        Raises:
            StateConflict: another run has stored meanwhile.
            AgentError: STATE_TOO_LARGE.
        """
        if self._changed:
            self._changed = False
            await self._blob.store(ormsgpack.packb(self._packed()))

    async def drop(self) -> None:
        """Keep nothing any more."""
        await self._blob.remove()

    def forget(self) -> None:
        """Begin anew."""
        self.delete_thread(self._thread)

    # --- the graph's side ---

    def put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        self._changed = True
        return super().put(config, checkpoint, metadata, new_versions)

    def put_writes(
        self,
        config: RunnableConfig,
        writes: Sequence[tuple[str, Any]],
        task_id: str,
        task_path: str = "",
    ) -> None:
        self._changed = True
        super().put_writes(config, writes, task_id, task_path)

    def delete_thread(self, thread_id: str) -> None:
        self._changed = True
        super().delete_thread(thread_id)

    # --- what is kept ---

    def _packed(self) -> dict[str, object]:
        kept = dict(self._kept())
        spaces = {(ns, id_) for ns, ids in kept.items() for id_ in ids}
        versions = {
            (ns, channel, version)
            for ns, id_ in spaces
            for channel, version in self._checkpoint(ns, id_)["channel_versions"].items()
        }
        return {
            "v": _VERSION,
            "checkpoints": [[ns, id_, *self._entry(ns, id_)] for ns, id_ in sorted(spaces)],
            "values": [
                [ns, channel, version, value]
                for (thread, ns, channel, version), value in self.blobs.items()
                if thread == self._thread and (ns, channel, version) in versions
            ],
            "writes": [
                [ns, id_, task, index, channel, value, path]
                for ns, id_ in sorted(spaces)
                for (task, index), (_, channel, value, path) in self._writes_of(ns, id_)
            ],
        }

    def _kept(self) -> Iterable[tuple[str, list[str]]]:
        """Namespaces and the checkpoints in them that the next run may ask for."""
        spaces = self.storage.get(self._thread) or {}
        root = max(spaces.get("") or {}, default="")
        for ns, entries in spaces.items():
            latest = max(entries, default="")
            if latest and (_TASK not in ns or self._parent_of(ns, latest) == root):
                yield ns, self._chain(ns, latest)

    def _chain(self, ns: str, latest: str) -> list[str]:
        """A checkpoint, and its ancestors as far back as a channel is still to be rebuilt from."""
        chain, current = [latest], latest
        while self._metadata(ns, current).get("counters_since_delta_snapshot"):
            parent = self._entry(ns, current)[2]
            if parent is None or parent not in self.storage[self._thread][ns]:
                break
            chain.append(parent)
            current = parent
        return chain

    def _parent_of(self, ns: str, id_: str) -> str:
        """The checkpoint of the whole graph that a subgraph's belongs to."""
        parents: dict[str, str] = self._metadata(ns, id_).get("parents") or {}
        return parents.get("", "")

    def _entry(self, ns: str, id_: str) -> tuple[_Typed, _Typed, str | None]:
        return self.storage[self._thread][ns][id_]

    def _checkpoint(self, ns: str, id_: str) -> Checkpoint:
        return cast("Checkpoint", self.serde.loads_typed(self._entry(ns, id_)[0]))

    def _metadata(self, ns: str, id_: str) -> dict[str, Any]:
        return cast("dict[str, Any]", self.serde.loads_typed(self._entry(ns, id_)[1]))

    def _writes_of(
        self, ns: str, id_: str
    ) -> Iterable[tuple[tuple[str, int], tuple[str, str, _Typed, str]]]:
        return self.writes.get((self._thread, ns, id_), {}).items()


def _typed(found: Sequence[Any]) -> _Typed:
    kind, value = found
    return str(kind), bytes(value)
