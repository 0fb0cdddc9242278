"""The run's key: what it signs, and what it never tells."""

import base64
import secrets
import time

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from portico_agent.settings import Secrets
from portico_shared.messages import IdentifyCall, TokenCall, proof_text
from portico_shared.versions import PROTOCOL


class Credential:
    """Signs for one run. The seed is portico-init's, so every agent of the run is the same party to the gateway."""

    def __init__(self, run: str, held: Secrets) -> None:
        self.run = run
        self._run_token = held.run_token
        self._key = Ed25519PrivateKey.from_private_bytes(held.seed)

    def __repr__(self) -> str:
        return f"Credential({self.run})"

    @property
    def public_key(self) -> str:
        raw = self._key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
        return _base64url(raw)

    def identify(self) -> IdentifyCall:
        """The first call, fresh each time."""
        nonce, now = _base64url(secrets.token_bytes(16)), int(time.time())
        return IdentifyCall(
            run=self.run,
            run_token=self._run_token,
            public_key=self.public_key,
            protocol=(PROTOCOL.major, PROTOCOL.minor),
            time=now,
            nonce=nonce,
            signature=self._sign("identify", nonce, now),
        )

    def answer_challenge(self, nonce: str) -> TokenCall:
        return TokenCall(run=self.run, nonce=nonce, signature=self._sign("token", nonce, 0))

    def _sign(self, use: str, nonce: str, at: int) -> str:
        return _base64url(self._key.sign(proof_text(use, self.run, nonce, at)))


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
