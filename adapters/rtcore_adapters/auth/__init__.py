"""Who comes with which credential: JSON Web Tokens (RFC 7519) and API keys."""

from .authenticator import WSAuthenticator
from .errors import AuthenticationError

__all__ = ["AuthenticationError", "WSAuthenticator"]
