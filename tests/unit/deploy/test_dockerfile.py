"""The image: locked, not root, with everything that it copies in the build context and no key."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from docker.utils.build import (  # type: ignore[import-untyped]  # it ships no types
    PatternMatcher,
    exclude_paths,
)

from factorychain._core.settings import PREFIX
from factorychain._core.settings.reference import SERVICES
from tests.unit.deploy.chain import DEPLOY, READERS, ROOT, port_of

DOCKERFILE = DEPLOY / "Dockerfile"
IGNORED = [
    line
    for line in (ROOT / ".dockerignore").read_text().splitlines()
    if line and not line.startswith("#")
]


def instructions(text: str) -> list[tuple[str, str]]:
    """Each instruction and its argument, with continued lines joined."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [(line.split()[0], line.split(maxsplit=1)[1]) for line in joined.splitlines() if line]


def arguments(name: str) -> list[str]:
    return [rest for each, rest in instructions(DOCKERFILE.read_text()) if each == name]


def copied() -> list[str]:
    """What is copied from the build context."""
    sources = []
    for rest in arguments("COPY"):
        words = shlex.split(rest)
        if not any(word.startswith("--from=") for word in words):
            sources += [word.rstrip("/") for word in words[:-1] if not word.startswith("--")]
    return sources


def context() -> set[str]:
    """What `docker build` sends."""
    return set(exclude_paths(str(ROOT), IGNORED))


def test_hadolint_has_nothing_to_say() -> None:
    hadolint = Path(sys.executable).parent / "hadolint"
    done = subprocess.run(
        [str(hadolint), "--no-color", str(DOCKERFILE)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_the_base_image_is_a_build_argument_of_both_stages() -> None:
    found = instructions(DOCKERFILE.read_text())
    assert found[0] == ("ARG", "BASE_IMAGE=python:3.11-slim-bookworm")
    assert [rest.split()[0] for name, rest in found if name == "FROM"] == ["${BASE_IMAGE}"] * 2


def test_everything_that_is_copied_is_in_the_build_context() -> None:
    there = context()
    assert len(copied()) > 5
    assert [each for each in copied() if each not in there] == []


def test_the_packages_of_the_wheel_are_copied() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert [each for each in packages if Path(each).parts[0] not in copied()] == []


def test_the_build_context_holds_no_cache_and_nothing_that_is_not_copied() -> None:
    there = {each for each in context() if (ROOT / each).is_file()} - {".dockerignore"}
    assert [each for each in there if "__pycache__" in each] == []
    sources = tuple(copied())
    assert [each for each in there if not each.startswith(sources)] == []


@pytest.mark.parametrize(
    "path", ["deploy/secrets/txn-key.pem", ".git/config", ".venv/bin/python", ".env", "tests/x.py"]
)
def test_the_build_context_leaves_out(path: str) -> None:
    assert PatternMatcher(IGNORED).matches(path)


def test_every_download_is_held_to_a_hash() -> None:
    installs = re.findall(r"pip (?:install|wheel) .*?(?=&&|done|$)", " ".join(arguments("RUN")))
    assert len(installs) == 3
    assert [
        each
        for each in installs
        if not {"--require-hashes", "--no-index", "--no-build-isolation"} & set(each.split())
    ] == []
    assert [each for each in installs if "--no-deps" not in each] == []


def test_the_image_runs_as_a_numeric_user_that_is_not_root() -> None:
    assert arguments("USER")[-1] == "10001:10001"
    # Whoever came after it would be root again.
    names = [name for name, _ in instructions(DOCKERFILE.read_text())]
    assert "RUN" not in names[names.index("USER") :]


def test_it_exposes_the_ports_that_the_services_listen_on_by_default() -> None:
    fields = [settings.model_fields for settings in SERVICES.values()]
    listens = [
        each[name].default for each in fields for name in ("listen", "edge_listen") if name in each
    ]
    assert set(arguments("EXPOSE")[0].split()) == {str(port_of(each)) for each in listens}


def test_its_variables_are_read_by_every_service() -> None:
    named = re.findall(rf"({PREFIX}\w+)=", " ".join(arguments("ENV")))
    assert [each for each in named if set(READERS.get(each, ())) != set(SERVICES)] == []


def test_its_folders_are_those_that_are_mounted() -> None:
    [made] = [rest for rest in arguments("RUN") if "--directory" in rest]
    assert made.split()[-2:] == ["/var/lib/factorychain", "/var/lib/nats"]
    for file in ("compose.yaml", "k8s/base/nats.yaml"):
        assert "/var/lib/nats" in (DEPLOY / file).read_text()
    for file in ("compose.yaml", "k8s/base/agents.yaml"):
        assert "/var/lib/factorychain" in (DEPLOY / file).read_text()


def locked(name: str) -> dict[str, str]:
    """The block of each requirement in a lock, by name."""
    text = (ROOT / "requirements" / f"{name}.txt").read_text()
    blocks = re.split(r"\n(?=[A-Za-z0-9])", text)
    return {block.split("==")[0].lower(): block for block in blocks}


def test_what_builds_the_wheel_is_locked_as_in_development() -> None:
    build, dev = locked("build"), locked("dev")
    versions = {name: (block.split()[0], dev[name].split()[0]) for name, block in build.items()}
    assert {name: pair for name, pair in versions.items() if pair[0] != pair[1]} == {}
    assert [name for name, block in build.items() if "--hash=sha256:" not in block] == []
    requires = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    assert {re.split(r"[<>=]", each)[0] for each in requires} <= build.keys()
