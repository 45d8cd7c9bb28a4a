"""The data directory of a chain on one machine: its keys, its NATS store, where it runs now.

Invariant: at most one chain runs on a data directory (an advisory lock held while it does), and only
its owner can look into it; a secret is a file of mode 0600 that is made once and kept.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from pathlib import Path

from factorychain._core.keys import TxnKey, jwks_document, new_secret, write_private
from factorychain.local.state import ChainState

DEFAULT = Path(".factorychain")
_PRIVATE_FOLDER = 0o700


class DataDirUnusable(Exception):
    """The data directory cannot be used; the message says why and what to do."""


class DataDir:
    """One chain's folder. Nothing is created before `prepare`."""

    def __init__(self, path: Path) -> None:
        self.path = path.resolve()
        self._keys = self.path / "keys"
        self._lock: int | None = None

    @property
    def state_file(self) -> Path:
        """Where a running chain says where it is."""
        return self.path / "chain.json"

    @property
    def nats_store(self) -> Path:
        """Folder of the JetStream store."""
        return self.path / "nats"

    @property
    def nats_config(self) -> Path:
        """The server's configuration; it holds passwords."""
        return self._keys / "nats-server.conf"

    @property
    def nats_log(self) -> Path:
        """What the NATS server logs."""
        return self.path / "nats.log"

    @property
    def txn_jwks_file(self) -> Path:
        """Public keys of the engine, as JWKS."""
        return self.path / "txn-jwks.json"

    def socket(self, layer: str) -> Path:
        """Where a layer listens for the others."""
        return self.path / f"{layer}.sock"

    def reason_file(self, layer: str) -> Path:
        """Where a layer that does not start says why."""
        return self.path / f"{layer}.failed"

    def prepare(self) -> None:
        """Makes the folder and takes its lock.

        Raises:
            DataDirUnusable: if it cannot be made, or a chain runs on it.
        """
        try:
            self._keys.mkdir(parents=True, exist_ok=True)
            for folder in (self.path, self._keys):
                folder.chmod(_PRIVATE_FOLDER)
            self.nats_store.mkdir(exist_ok=True)
            self._take_lock()
            # What a chain left that could not say goodbye.
            self.state_file.unlink(missing_ok=True)
            self.txn_jwks_file.write_text(jwks_document([TxnKey.parse(self.txn_key)]))
        except (OSError, ValueError) as error:
            self.release()
            why = error.strerror if isinstance(error, OSError) else f"keys/txn-key.pem {error}"
            raise DataDirUnusable(
                f"the data directory {self.path} cannot be used: {why}"
            ) from error

    def release(self) -> None:
        """Gives the lock back and forgets where the chain was; nothing without the lock."""
        if self._lock is not None:
            self.state_file.unlink(missing_ok=True)
            os.close(self._lock)
            self._lock = None

    @property
    def txn_key(self) -> bytes:
        """The private key that signs transaction tokens, PEM."""
        return self._kept("txn-key.pem", lambda: TxnKey.generate().to_pem())

    @property
    def user_secret(self) -> bytes:
        """The secret that signs the tokens of `factorychain token`."""
        return self._kept("user-secret", lambda: new_secret().encode())

    def nats_password(self, layer: str) -> str:
        """A layer's password for NATS."""
        return self._kept(f"nats-{layer}", lambda: new_secret().encode()).decode()

    def has_keys(self) -> bool:
        """Whether a chain was ever prepared here."""
        return (self._keys / "user-secret").is_file()

    def running(self) -> ChainState | None:
        """The chain that runs on this directory; None if none does."""
        return ChainState.read(self.state_file) if self.is_locked() else None

    def write_private(self, path: Path, content: bytes) -> None:
        """Writes a file that only its owner may read, in place of an earlier one."""
        path.unlink(missing_ok=True)
        write_private(path, content)

    def _kept(self, name: str, make: Callable[[], bytes]) -> bytes:
        path = self._keys / name
        try:
            return path.read_bytes()
        except FileNotFoundError:
            content = make()
            write_private(path, content)
            return content

    def _take_lock(self) -> None:
        lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(lock)
            raise DataDirUnusable(
                f"{self.path}: a chain already runs on this data directory. "
                "Stop it, or choose another with --data DIR"
            ) from error
        self._lock = lock

    def is_locked(self) -> bool:
        """Whether a chain starts, runs or stops on this directory."""
        try:
            lock = os.open(self.path / "lock", os.O_RDWR)
        except OSError:
            return False
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
        finally:
            os.close(lock)
        return False
