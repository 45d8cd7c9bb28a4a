"""The plain data of a confinement."""

from __future__ import annotations

from pathlib import Path

import pytest

from factorychain._sandbox import Confinement, InvalidConfinement


def test_it_crosses_to_a_process_as_text() -> None:
    it = Confinement(
        directory="/own",
        environment={"A": "b"},
        keep_descriptors=(1, 2),
        read_paths=("/data",),
        private_paths=("/keys",),
        connect_ports=(443,),
        processes=True,
        cpu_s=1.5,
        require=frozenset({"landlock", "seccomp"}),
    )
    assert Confinement.from_json(it.to_json()) == it


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"directory": "own"}, "directory: 'own' is not an absolute path"),
        ({"read_paths": ("data",)}, "read_paths: 'data' is not an absolute path"),
        ({"connect_ports": (0,)}, "connect_ports: 0 is no TCP port"),
        ({"connect_ports": (70_000,)}, "connect_ports: 70000 is no TCP port"),
        ({"memory_bytes": 0}, "memory_bytes: must be above 0"),
        ({"cpu_s": -1.0}, "cpu_s: must be above 0"),
        ({"processes_nice": 20}, "processes_nice: must be from 0 to 19"),
        ({"require": frozenset({"magic"})}, "require: unknown: magic; landlock, "),
    ],
)
def test_what_cannot_be_is_refused_by_name(change: dict[str, object], message: str) -> None:
    values: dict[str, object] = {"directory": "/own", "environment": {}} | change
    with pytest.raises(InvalidConfinement, match=message):
        Confinement(**values)  # type: ignore[arg-type]  # that is what is tested


@pytest.mark.parametrize("opened", ["", "data", "data/keys", "way"])
def test_no_declared_path_opens_what_is_private(tmp_path: Path, opened: str) -> None:
    private = tmp_path / "data"
    private.mkdir()
    (tmp_path / "way").symlink_to(private)
    with pytest.raises(InvalidConfinement, match=r"read_paths: .* would open"):
        Confinement(
            directory="/own",
            environment={},
            read_paths=(str(tmp_path / opened),),
            private_paths=(str(private),),
        )
    beside = str(tmp_path / "database")
    Confinement("/own", {}, read_paths=(beside,), private_paths=(str(private),))
