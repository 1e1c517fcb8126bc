"""What is said of a credential that is no good."""

from __future__ import annotations

from rtcore import Refusal, RtcoreError

__all__ = ["AuthenticationError"]


class AuthenticationError(RtcoreError):
    """A credential is no good, or cannot be made; nothing of it is in the message.

    Attributes:
        code: The stable name of the fault, in ``snake_case``: ``invalid_token``, ``token_expired``, ``invalid_api_key``
            and ``keys_unavailable``, and for a token to be made ``invalid_claims`` and ``no_signing_key``.
        message: What is wrong and how to mend it.
        status: The HTTP status that fits.
        retry_after: Seconds after which another try may succeed, or ``None``.
    """

    def __init__(self, code: str, message: str, *, status: int = 401, retry_after: int | None = None) -> None:
        self.code = code
        self.message = message
        self.status = status
        self.retry_after = retry_after
        super().__init__(f"{code}: {message}")

    @property
    def refusal(self) -> Refusal:
        """The same as a `Refusal`."""
        return Refusal(self.code, self.message, self.status, self.retry_after)
