"""The chain's own keys and passwords, as files, as Kubernetes objects, and a token to try it out.

credentials.py make [DIR]                    makes what is missing in DIR (default: deploy/secrets)
credentials.py manifest [DIR]                prints it for `kubectl apply -f -`
credentials.py token [DIR] --user NAME       prints a user token that DIR's user-jwks.json verifies

Invariant: a file that is there is never overwritten, so that `make` may run again at every release,
and a private key never leaves DIR but for the one service that reads it.
"""

from __future__ import annotations

import argparse
import base64
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import jwt

from factorychain._core.keys import TxnKey, jwks_document, new_secret, write_private
from factorychain._core.settings import UserTokenSettings

DEFAULT_DIR = Path(__file__).parent / "secrets"

# Kubernetes object -> the files in it. Those who mount it know the files by the same names.
SECRETS: Mapping[str, Sequence[str]] = {
    "factorychain-txn-key": ["txn-key.pem"],
    "factorychain-nats-engine": ["nats-engine-password"],
    "factorychain-nats-bridge": ["nats-bridge-password"],
    "factorychain-nats-passwords": ["nats-passwords.conf"],
}
CONFIG_MAPS: Mapping[str, Sequence[str]] = {
    "factorychain-txn-jwks": ["txn-jwks.json"],
    "factorychain-user-jwks": ["user-jwks.json"],
}
AUDIENCE: str = UserTokenSettings.model_fields["user_audience"].default
# In DIR only: it signs the tokens of `token`, where an identity provider is not at hand.
USER_KEY = "user-key.pem"


def _password(_: Path) -> str:
    return new_secret()


def _private_key(_: Path) -> str:
    return TxnKey.generate().to_pem().decode()


def _public_of(key: str) -> Callable[[Path], str]:
    return lambda folder: jwks_document([TxnKey.from_file(folder / key)])


def _nats_passwords(folder: Path) -> str:
    # Included by nats.conf, which says what each of them may do.
    names = {"ENGINE_PASSWORD": "nats-engine-password", "BRIDGE_PASSWORD": "nats-bridge-password"}
    values = {name: (folder / file).read_text().strip() for name, file in names.items()}
    return "".join(f"{name}: {json.dumps(value)}\n" for name, value in values.items())


# In order: what is made from another file comes after it.
_MAKERS: Mapping[str, Callable[[Path], str]] = {
    "txn-key.pem": _private_key,
    "txn-jwks.json": _public_of("txn-key.pem"),
    USER_KEY: _private_key,
    "user-jwks.json": _public_of(USER_KEY),
    "user-secret": _password,
    "nats-engine-password": _password,
    "nats-bridge-password": _password,
    "nats-passwords.conf": _nats_passwords,
}


def names() -> set[str]:
    """The files that `make` makes and a service may read."""
    return _MAKERS.keys() - {USER_KEY}


def make(folder: Path) -> list[str]:
    """Make what is missing; the names of the new files.

    The folder's mode keeps others on this machine out. The files themselves are readable by all: a
    compose secret is mounted with the mode that it has here, and read by the image's user.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)
    made = [name for name in _MAKERS if not (folder / name).exists()]
    for name in made:
        write_private(folder / name, _MAKERS[name](folder).encode())
        if name != USER_KEY:
            (folder / name).chmod(0o444)
    return made


def manifest(folder: Path) -> dict[str, object]:
    """A Kubernetes List of the Secrets and ConfigMaps that the base mounts."""
    items = []
    for name, files in SECRETS.items():
        data = {file: _base64(folder / file) for file in files}
        items.append(_object("Secret", name, data) | {"type": "Opaque"})
    for name, files in CONFIG_MAPS.items():
        items.append(
            _object("ConfigMap", name, {file: (folder / file).read_text() for file in files})
        )
    return {"apiVersion": "v1", "kind": "List", "items": items}


def token(folder: Path, *, user: str, tenant: str, audience: str, ttl_s: int) -> str:
    """A user token signed with the folder's own user key."""
    key, now = TxnKey.from_file(folder / USER_KEY), int(time.time())
    claims = {"sub": user, "tenant": tenant, "aud": audience, "iat": now, "exp": now + ttl_s}
    return jwt.encode(claims, key.to_pem(), algorithm="EdDSA", headers={"kid": key.kid})


def _object(kind: str, name: str, data: Mapping[str, str]) -> dict[str, object]:
    labels = {"app.kubernetes.io/name": "factorychain"}
    return {
        "apiVersion": "v1",
        "kind": kind,
        "metadata": {"name": name, "labels": labels},
        "data": dict(data),
    }


def _base64(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()


def _arguments(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=["make", "manifest", "token"])
    parser.add_argument("dir", nargs="?", type=Path, default=DEFAULT_DIR, metavar="DIR")
    parser.add_argument("--user", default="ada", help="of the token (default: ada)")
    parser.add_argument("--tenant", default="default", help="of the token (default: default)")
    parser.add_argument("--audience", default=AUDIENCE, help="of the token")
    parser.add_argument("--ttl-s", type=int, default=3600, help="life of the token in seconds")
    return parser.parse_args(arguments)


def _answer(args: argparse.Namespace) -> str:
    folder: Path = args.dir
    if args.command == "make":
        made = make(folder)
        return f"{folder}: made {', '.join(made)}" if made else f"{folder}: nothing was missing"
    if args.command == "manifest":
        return json.dumps(manifest(folder), indent=2)
    return token(
        folder, user=args.user, tenant=args.tenant, audience=args.audience, ttl_s=args.ttl_s
    )


def main(arguments: Sequence[str]) -> int:
    """Run one command; its exit status."""
    args = _arguments(arguments)
    try:
        answer = _answer(args)
    except (OSError, ValueError) as error:
        print(f"{error}; `credentials.py make {args.dir}` makes what is missing", file=sys.stderr)
        return 1
    print(answer)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
