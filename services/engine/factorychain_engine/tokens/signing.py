"""The keys of transaction tokens, as the engine is configured: what it signs with, and what verifies that."""

from __future__ import annotations

from dataclasses import dataclass

from factorychain._core.jwks import JwksFile, KeySet, parse_jwks
from factorychain._core.keys import KeyUnusable, jwks_document
from factorychain._core.settings import EngineSettings
from factorychain._core.txn_tokens import TxnSigner, TxnVerifier


@dataclass(frozen=True, slots=True)
class _OwnKeys:
    """The engine's own public key, where no file names those of the chain."""

    keys: KeySet

    def current(self) -> KeySet:
        return self.keys


def signer_of(settings: EngineSettings) -> TxnSigner:
    """Signs transaction tokens.

    Raises:
        KeyUnusable: there is no key, or it cannot be used.
    """
    if settings.txn_key_file is None:
        raise KeyUnusable(
            "FACTORYCHAIN_TXN_KEY_FILE is not set; it names the key that signs transaction tokens"
        )
    return TxnSigner.from_settings(settings, settings.txn_key_file)


def verifier_of(settings: EngineSettings, signer: TxnSigner) -> TxnVerifier:
    """Verifies what the engine signs.

    Raises:
        KeyUnusable: the file of public keys lacks this engine's: every layer would refuse its runs.
    """
    if settings.txn_jwks_file is None:
        own = parse_jwks(jwks_document([signer.key]).encode())
        return TxnVerifier(_OwnKeys(own), settings.trust_domain)
    source = JwksFile(settings.txn_jwks_file)
    if source.current().find(signer.key.kid) is None:
        raise KeyUnusable(
            f"{settings.txn_jwks_file} (FACTORYCHAIN_TXN_JWKS_FILE) lacks the public key of "
            f"FACTORYCHAIN_TXN_KEY_FILE, {signer.key.kid}; add it before the engine signs with it"
        )
    return TxnVerifier(source, settings.trust_domain)
