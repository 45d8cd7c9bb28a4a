"""Made-up secrets of every kind, each with the part that must never be seen."""

from __future__ import annotations

from typing import NamedTuple


class Sample(NamedTuple):
    """A secret in a text, and its body."""

    kind: str
    text: str
    body: str


_JWT_BODY = (
    "hbGciOiJFZERTQSIsInR5cCI6IkpXVCJ9.eyJzdWIiOiJhZGEiLCJleHAiOjE4MDB9."
    "c2lnbmF0dXJlLW9mLWEtdGVzdC10b2tlbg"
)
_KEY_BODY = "\n".join(["MC4CAQAwBQYDK2VwBCIEIJ" + "aB3d" * 10] * 12)

# Put together here, so that no scanner of this repository takes them for real ones.
SAMPLES: tuple[Sample, ...] = (
    Sample("aws", "AKIA" + "IOSFODNN7EXAMPLE", "IOSFODNN7EXAMPLE"),
    Sample("aws", "ASIA" + "Y34FZKBOKMUTVV7A", "Y34FZKBOKMUTVV7A"),
    Sample(
        "aws",
        'aws_secret_access_key = "' + "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY" + '"',
        "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
    ),
    Sample("github", "ghp_" + "a1B2" * 9, "a1B2" * 9),
    Sample("github", "ghs_" + "Zz90" * 9, "Zz90" * 9),
    Sample("github", "github_pat_" + "11ABCDEFG0_" + "x9" * 30, "11ABCDEFG0_" + "x9" * 30),
    Sample("slack", "xoxb-" + "123456789012-abcdefABCDEF", "123456789012-abcdefABCDEF"),
    Sample("slack", "xapp-" + "1-A0123-456-abcdef", "1-A0123-456-abcdef"),
    Sample(
        "slack",
        "https://hooks.slack.com/services/" + "T00000000/B00000000/XXXXyyyyZZZZ1111",
        "T00000000/B00000000/XXXXyyyyZZZZ1111",
    ),
    Sample("google", "AIza" + "SyA1-b_C2" * 4, "SyA1-b_C2" * 4),
    Sample("google", "GOCSPX-" + "abcd_EFGH-1234567890ijkl", "abcd_EFGH-1234567890ijkl"),
    Sample("stripe", "sk_live_" + "4eC39HqLyjWDarjtT1zdp7dc", "4eC39HqLyjWDarjtT1zdp7dc"),
    Sample("stripe", "rk_test_" + "4eC39HqLyjWDarjtT1zdp7dc", "4eC39HqLyjWDarjtT1zdp7dc"),
    Sample("stripe", "whsec_" + "5f2a9c81d4e7b3a6c0f19e2d", "5f2a9c81d4e7b3a6c0f19e2d"),
    Sample("jwt", "eyJ" + _JWT_BODY, _JWT_BODY),
    Sample(
        "private_key",
        f"-----BEGIN PRIVATE KEY-----\n{_KEY_BODY}\n-----END PRIVATE KEY-----",
        _KEY_BODY,
    ),
    Sample(
        "private_key",
        f"-----BEGIN RSA PRIVATE KEY-----\n{_KEY_BODY}\n-----END RSA PRIVATE KEY-----",
        _KEY_BODY,
    ),
    Sample(
        "database_url", "postgresql+asyncpg://ada:" + "c0rrect-horse@db:5432/x", "c0rrect-horse"
    ),
    Sample("database_url", "mongodb+srv://root:" + "p/a/s/s@cluster0.example.net", "p/a/s/s"),
    Sample("database_url", "redis://:" + "hunter2hunter2@cache", "hunter2hunter2"),
    Sample("database_url", "mysql://u:" + "p@ss@host/db", "p@ss"),
)

PROSE = (
    "The quick brown fox jumps over the lazy dog; see https://docs.python.org/3/ and the "
    "`re` module -- a good read. Prices rose by 3_000 in ASIA, he said. - item one\n- item two\n"
    "--- \nA key idea: keep secrets out. http://localhost:8080/@scope is a path, my_name@host an "
    "address. Skip the token bucket; its skill is to risk nothing. xoxo"
)
