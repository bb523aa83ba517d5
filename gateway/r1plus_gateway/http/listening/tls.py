"""The server's certificate, read again when its files change."""

import logging
import os
import ssl

from r1plus_gateway.settings import SettingsError, TlsPaths

log = logging.getLogger(__name__)


class ServerCertificate:
    """A TLS context that follows its files; a pair that does not fit is reported, and the last good one stays."""

    def __init__(self, paths: TlsPaths) -> None:
        """Read the files for the first time.

        Raises:
            SettingsError: they cannot be used.
        """
        self._paths = paths
        self._stamp = self._read_stamp()
        self.context = self._load()

    def refresh(self) -> None:
        """Read the files again if they changed; new connections get the new certificate."""
        stamp = self._read_stamp()
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._load()  # in a context of its own: a pair that does not fit would leave half of it in ours
        except SettingsError as error:
            log.error("Certificate is not usable, the last good one stays: %s", error)
            return
        self.context.load_cert_chain(self._paths.certificate, self._paths.key)
        log.info("Certificate read again")

    def _load(self) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            context.load_cert_chain(self._paths.certificate, self._paths.key)
        except (OSError, ssl.SSLError) as error:
            raise SettingsError(
                f"tls: {self._paths.certificate}, {self._paths.key}: {error}; mount a PEM certificate and its key"
            ) from error
        return context

    def _read_stamp(self) -> tuple[tuple[int, int], ...] | None:
        try:
            files = [os.stat(path) for path in (self._paths.certificate, self._paths.key)]  # noqa: PTH116
        except OSError:
            return None
        return tuple((file.st_ino, file.st_mtime_ns) for file in files)
