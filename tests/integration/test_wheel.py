"""What is in the wheel. That it works when it is installed: tests/installations."""

from __future__ import annotations

import zipfile
from pathlib import Path

from tests.command import ROOT
from tests.wheel_fixture import LAYERS


def test_a_wheel_holds_the_packages_and_what_they_need_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    packages = ["factorychain", *(f"factorychain_{each}" for each in LAYERS)]
    assert {f"{package}/py.typed" for package in packages} <= names
    console = ROOT / "services" / "bridge" / "factorychain_bridge" / "edge" / "console"
    pages = {each.name for each in console.iterdir() if each.suffix in (".html", ".js", ".css")}
    assert {"index.html", "console.js"} <= pages
    assert {f"factorychain_bridge/edge/console/{each}" for each in pages} <= names
    assert "factorychain/engine/v1/engine_pb2_grpc.py" in names
    tops = {name.partition("/")[0] for name in names}
    assert {each for each in tops if not each.endswith(".dist-info")} == set(packages)
    tests = [name for name in names if "test_" in name and name.endswith(".py")]
    assert tests + [name for name in names if "__pycache__" in name] == []
