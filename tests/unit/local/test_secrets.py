"""Secrets by inherited descriptor."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from factorychain.local.secrets import SecretFile

READ = "import sys; print(*(open(path).read() for path in sys.argv[1:]))"


def read(secret: SecretFile, *, inherited: bool) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", READ, secret.path, secret.path],
        pass_fds=[secret.fd] if inherited else [],
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_child_that_inherits_it_reads_it_as_often_as_it_likes() -> None:
    secret = SecretFile("key", b"hush")
    assert read(secret, inherited=True).stdout == "hush hush\n"
    assert read(secret, inherited=True).stdout == "hush hush\n"
    secret.close()


def test_a_child_that_does_not_inherit_it_has_no_such_file() -> None:
    secret = SecretFile("key", b"hush")
    assert "hush" not in read(secret, inherited=False).stdout
    secret.close()


def test_it_is_in_no_file_system_and_gone_when_closed() -> None:
    secret = SecretFile("key", b"hush")
    assert str(Path(f"/proc/self/fd/{secret.fd}").readlink()).startswith("/memfd:factorychain-key")
    secret.close()
    assert not Path(secret.path).exists()
