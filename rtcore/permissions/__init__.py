"""Who may do what: what a credential allows, what a channel asks for, and the one decision between them."""

from .claims import identity_of
from .decision import Action, decide
from .grants import EVERYTHING, OPEN, Credential, Grant, Identity, Scope
from .revocations import Revocation, Revocations, parse_revocation
from .roles import Role
from .scopes import grant_of_scopes

__all__ = [
    "Action",
    "Credential",
    "EVERYTHING",
    "Grant",
    "Identity",
    "OPEN",
    "Revocation",
    "Revocations",
    "Role",
    "Scope",
    "decide",
    "grant_of_scopes",
    "identity_of",
    "parse_revocation",
]
