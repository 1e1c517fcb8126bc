"""How a client is sure of its server, and the server of the client: the contexts of TLS."""

from __future__ import annotations

import os
import ssl
from typing import TypeAlias

from rtcore import LocalProtocolError

__all__ = ["ClientCertificate", "tls_context"]

#: The files of a certificate and of its key, in PEM; ``None`` for a key in the file of the certificate.
ClientCertificate: TypeAlias = tuple[str | os.PathLike[str], str | os.PathLike[str] | None]


def tls_context(
    ssl_context: ssl.SSLContext | None,
    ca_file: str | os.PathLike[str] | None,
    client_certificate: ClientCertificate | None,
) -> ssl.SSLContext | None:
    """Return the context for what a user has said about TLS; ``None`` for nothing, which means the defaults.

    Args:
        ssl_context: A context made by the user, who then says nothing else.
        ca_file: A PEM file of the authorities to trust, in place of the system's.
        client_certificate: What to show a server that wants to see a certificate. The key has no password.

    Raises:
        LocalProtocolError: A file cannot be read, or they contradict each other.
    """
    if ca_file is None and client_certificate is None:
        return ssl_context
    if ssl_context is not None:
        raise LocalProtocolError("ssl_context goes without ca_file and client_certificate: load them into it")
    try:
        context = ssl.create_default_context(cafile=ca_file)
    except OSError as error:
        # That of ssl is one too.
        raise LocalProtocolError(f"cannot read authorities from {str(ca_file)!r}: {error}") from error
    if client_certificate is not None:
        certificate, key = client_certificate
        try:
            # Where there is a password, even an empty one, nobody is asked for it at the terminal.
            context.load_cert_chain(certificate, key, password="")
        except OSError as error:
            raise LocalProtocolError(
                f"cannot read a certificate and its key from {str(certificate)!r}: {error}"
            ) from error
    return context
