"""
Functions of OpenSSL that pyOpenSSL does not offer, called through **its private names**.

Called by `twsock.tls.client` and `twsock.tls.server` for each connection, before its handshake. The
private names are those of pyOpenSSL 26.4. If a release lacks one of them, `BINDING` is None and
``tests/tls/test_openssl.py`` fails. Handshakes then use pyOpenSSL's public functions: most refused
peers receive the alert ``internal_error``, and no session is resumed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final
from weakref import WeakKeyDictionary

import OpenSSL
from OpenSSL import SSL
from OpenSSL.crypto import X509
from twisted.logger import Logger
from twisted.python.failure import Failure

__all__ = ["BINDING", "Binding", "Judge", "find_binding", "verify_peer"]

_log = Logger()

#: Judges one step of a verification. Parameters: connection, certificate (not None at depth 0 of a
#: step without error), verification code, depth, and whether the step has no error. Returns whether
#: to continue, and the verification code to set. If the handshake ends here, OpenSSL sends the
#: alert that belongs to that code.
Judge = Callable[[SSL.Connection, Any, int, int, int], tuple[bool, int]]

#: Functions of OpenSSL in the module that pyOpenSSL calls `_util`.
_FUNCTIONS: Final = (
    "SSL_get_ex_data_X509_STORE_CTX_idx",
    "SSL_get_verify_result",
    "SSL_session_reused",
    "SSL_set_verify",
    "X509_STORE_CTX_get_current_cert",
    "X509_STORE_CTX_get_error",
    "X509_STORE_CTX_get_error_depth",
    "X509_STORE_CTX_get_ex_data",
    "X509_STORE_CTX_set_error",
    "X509_up_ref",
)


def _log_failure(kind: Any, error: BaseException, traceback: Any) -> None:
    # The callback then returns `error=0` to OpenSSL, which refuses the peer.
    failure = Failure(error, kind, traceback)
    failure.cleanFailure()  # Observers that keep events would keep the frames.
    _log.failure("the verification of a peer failed", failure)


class Binding:
    """
    Calls OpenSSL's own functions directly, without pyOpenSSL.

    :param util: the module `OpenSSL._util`.
    :raises AttributeError: when it lacks one of the names.
    """

    def __init__(self, util: Any) -> None:
        ffi, self._lib = util.ffi, util.lib
        for name in _FUNCTIONS:
            getattr(self._lib, name)
        self._connections = SSL.Connection._reverse_mapping
        self._to_x509 = X509._from_raw_x509_ptr
        self._judges: WeakKeyDictionary[SSL.Connection, Judge] = WeakKeyDictionary()
        # One callback for all connections: it looks each of them up, and keeps no reference.
        self._callback = ffi.callback(
            "int(int, X509_STORE_CTX *)", self._verify, error=0, onerror=_log_failure
        )

    def verify_peer(self, connection: SSL.Connection, mode: int, judge: Judge) -> None:
        """Set the judge of a connection's peer; see the function `verify_peer`."""
        self._judges[connection] = judge
        self._lib.SSL_set_verify(connection._ssl, mode, self._callback)

    def is_resumed(self, connection: SSL.Connection) -> bool:
        """Return whether a handshake that is done resumed an earlier session."""
        return bool(self._lib.SSL_session_reused(connection._ssl))

    def verify_result(self, connection: SSL.Connection) -> int:
        """Return the verification code that the last verification, or the session, has set."""
        return int(self._lib.SSL_get_verify_result(connection._ssl))

    def is_same_session(self, one: SSL.Session, other: SSL.Session) -> bool:
        """Return whether both are the same session of OpenSSL, with the same ticket."""
        return bool(one._session == other._session)

    # Called by OpenSSL.

    def _verify(self, ok: int, store: Any) -> int:
        lib = self._lib
        ssl = lib.X509_STORE_CTX_get_ex_data(store, lib.SSL_get_ex_data_X509_STORE_CTX_idx())
        connection = self._connections[ssl]
        code = lib.X509_STORE_CTX_get_error(store)
        depth = lib.X509_STORE_CTX_get_error_depth(store)
        shown = None
        if ok and not depth:
            certificate = lib.X509_STORE_CTX_get_current_cert(store)
            lib.X509_up_ref(certificate)
            shown = self._to_x509(certificate)
        goes_on, left = self._judges[connection](connection, shown, code, depth, ok)
        lib.X509_STORE_CTX_set_error(store, left)
        return int(goes_on)


def find_binding(util: Any) -> Binding | None:
    """
    Return the binding; None if this release of pyOpenSSL lacks one of the private names.

    :param util: the module `OpenSSL._util`, or None.
    """
    try:
        return Binding(util)
    except AttributeError:
        return None


#: The binding of this process.
BINDING: Final = find_binding(getattr(OpenSSL, "_util", None))


def verify_peer(
    connection: SSL.Connection, mode: int, judge: Judge, binding: Binding | None = BINDING
) -> None:
    """
    Set the judge that OpenSSL asks about each certificate of the peer.

    The judge must not refer to the connection, or both would keep each other in memory.

    :param mode: ``VERIFY_…`` flags of `OpenSSL.SSL`.
    :param binding: None for pyOpenSSL's public function, which ignores the codes of the judge.
    """
    if binding is not None:
        binding.verify_peer(connection, mode, judge)
    else:
        connection.set_verify(mode, lambda *step: judge(*step)[0])
