"""Secrets for child processes, by inherited descriptor.

A secret never stands in an environment variable or on a command line, where other processes could read
it: the child gets a path `/dev/fd/N` of an anonymous file in memory that it inherited.
"""

from __future__ import annotations

import os


class SecretFile:
    """One secret as an anonymous file, inheritable by the children that are given it."""

    def __init__(self, name: str, content: bytes) -> None:
        self.fd = os.memfd_create(f"factorychain-{name}", os.MFD_CLOEXEC)
        os.write(self.fd, content)
        os.lseek(self.fd, 0, os.SEEK_SET)

    @property
    def path(self) -> str:
        """The path under which a child that inherits the descriptor opens it."""
        return f"/dev/fd/{self.fd}"

    def close(self) -> None:
        """Forgets the secret; children keep their copy of the descriptor."""
        os.close(self.fd)
