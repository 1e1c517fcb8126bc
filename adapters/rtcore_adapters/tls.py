"""The TLS of a server: its certificate and key, who vouches for clients, and all of that anew while it runs."""

from __future__ import annotations

import logging
import ssl
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import attrs
from cryptography import x509

from .hosting_error import HostingError

__all__ = ["ServerTls", "TlsFiles", "tls_files"]

_log = logging.getLogger("rtcore.tls")

_PROTOCOLS: Final = ["http/1.1"]


@attrs.frozen
class TlsFiles:
    """Where everything is, in PEM.

    Attributes:
        certificate: The server's certificate, and after it those that vouch for it.
        key: The private key of that certificate, without a passphrase.
        client_ca: The authorities one of which a client's certificate must come from; ``None``: clients need none.
    """

    certificate: Path
    key: Path
    client_ca: Path | None = None


def tls_files(certificate: str | None, key: str | None, client_ca: str | None = None) -> TlsFiles | None:
    """Return the files of a server's TLS, or ``None`` if it has none.

    Raises:
        HostingError: One needs the other.
    """
    if certificate is None and key is None and client_ca is None:
        return None
    if certificate is None or key is None:
        missing = "a certificate (--tls-certificate or REALTIME_TLS_CERTIFICATE)"
        if certificate is not None:
            missing = "the key of its certificate (--tls-key or REALTIME_TLS_KEY)"
        raise HostingError(f"TLS needs {missing}")
    return TlsFiles(Path(certificate), Path(key), None if client_ca is None else Path(client_ca))


class ServerTls:
    """The contexts in which a server does its handshakes.

    Args:
        files: Read at once.

    Attributes:
        files: Where they are read from again.

    Raises:
        HostingError: A file cannot be read, is not what it should be, or does not fit the others; or the certificate
            has expired.
    """

    def __init__(self, files: TlsFiles) -> None:
        self.files = files
        self._context = _build(files)
        self._lasting: list[ssl.SSLContext] = []

    def context(self) -> ssl.SSLContext:
        """Return the context for the next handshake; ask again for the one after it."""
        return self._context

    def lasting_context(self, protocols: list[str]) -> ssl.SSLContext:
        """Return a context for a server that asks once: reading anew changes its certificate, not its clients' CA.

        Args:
            protocols: What the server speaks, by ALPN.
        """
        context = _build(self.files, protocols)
        self._lasting.append(context)
        return context

    def reload(self) -> None:
        """Read the files anew for the handshakes from now on; if that fails, log why, and all is as it was."""
        try:
            self._context = _build(self.files)
            for context in self._lasting:
                context.load_cert_chain(self.files.certificate, self.files.key)
        except (HostingError, OSError) as error:
            _log.error("the TLS files are not read anew: %s", error)
        else:
            _log.info("the TLS files have been read anew")


def _build(files: TlsFiles, protocols: list[str] = _PROTOCOLS) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # A handshake costs the server more than the client, who could ask for one after the other.
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(protocols)
    _check_certificate(files.certificate)
    _load_key(context, files)
    if files.client_ca is not None:
        _read(files.client_ca, "authorities of clients")
        try:
            context.load_verify_locations(files.client_ca)
        except ssl.SSLError as error:
            raise HostingError(f"TLS: there is no certificate in PEM in {files.client_ca}") from error
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def _check_certificate(path: Path) -> None:
    data = _read(path, "certificate")
    try:
        certificate = x509.load_pem_x509_certificates(data)[0]
    except ValueError as error:
        raise HostingError(f"TLS: there is no certificate in PEM in {path}") from error
    expired_at = certificate.not_valid_after_utc
    if expired_at < datetime.now(UTC):
        raise HostingError(f"TLS: the certificate in {path} has expired on {expired_at:%Y-%m-%d}: renew it")


def _load_key(context: ssl.SSLContext, files: TlsFiles) -> None:
    if b"ENCRYPTED" in _read(files.key, "key"):
        # Otherwise OpenSSL asks for a passphrase, on a terminal that need not be there.
        raise HostingError(f"TLS: the key in {files.key} has a passphrase: store it without one")
    try:
        context.load_cert_chain(files.certificate, files.key)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            message = f"TLS: the key in {files.key} is not that of the certificate in {files.certificate}"
        else:
            reason = (error.reason or str(error)).lower().replace("_", " ")
            message = f"TLS: {files.certificate} and {files.key} are no certificate and private key in PEM: {reason}"
        raise HostingError(message) from error


def _read(path: Path, what: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise HostingError(f"TLS: cannot read the {what} in {path}: {error.strerror}") from error
