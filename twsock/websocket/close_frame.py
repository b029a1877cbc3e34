"""
Payload of a close frame (:rfc:`6455`, sections 5.5.1 and 7.4): code and reason ↔ **payload**.

Used by the decoder in `twsock.websocket.messages`, and by `twsock.websocket.connection`.
`WebSocketViolation` is here, since it carries the code and the reason of the close frame that
answers the violation. Nothing is held.
"""

from __future__ import annotations

import enum
from typing import Final

from typing_extensions import override

from twsock._integers import checked_integer
from twsock.errors import RemoteProtocolError
from twsock.websocket.frames import MAX_CONTROL_PAYLOAD

__all__ = [
    "MAX_REASON",
    "CloseCode",
    "WebSocketViolation",
    "check_code",
    "check_reason",
    "decode_close",
    "encode_close",
    "named_code",
]

_CODE_SIZE: Final = 2

#: The largest reason, in bytes of UTF-8.
MAX_REASON: Final = MAX_CONTROL_PAYLOAD - _CODE_SIZE


class CloseCode(enum.IntEnum):
    """
    Why a WebSocket closes: the codes that IANA has registered from 1000 to 1999.

    ``str`` returns the number.
    """

    NORMAL_CLOSURE = 1000
    GOING_AWAY = 1001
    PROTOCOL_ERROR = 1002
    UNSUPPORTED_DATA = 1003
    #: The close frame was empty; never sent.
    NO_STATUS_RECEIVED = 1005
    #: The connection was lost without a close frame; never sent.
    ABNORMAL_CLOSURE = 1006
    INVALID_PAYLOAD_DATA = 1007
    POLICY_VIOLATION = 1008
    MESSAGE_TOO_BIG = 1009
    #: A client needs an extension that the server has not agreed to.
    MANDATORY_EXTENSION = 1010
    INTERNAL_ERROR = 1011
    SERVICE_RESTART = 1012
    TRY_AGAIN_LATER = 1013
    BAD_GATEWAY = 1014
    #: The TLS handshake failed; never sent.
    TLS_HANDSHAKE = 1015

    # As in Python 3.11 and later. In Python 3.10 ``str`` returns the name.
    @override
    def __str__(self) -> str:
        return str(self.value)

    @override
    def __format__(self, form: str) -> str:
        return format(self.value, form)


#: Codes that a close frame carries (section 7.4.2, and IANA's registry). The code 1004 has no
#: meaning, and 1005, 1006 and 1015 are never sent. Applications register 3000 to 3999; those from
#: 4000 to 4999 are private.
_SENT_CODES: Final = frozenset((*range(1000, 1004), *range(1007, 1015), *range(3000, 5000)))


_NAMED: Final[dict[int, CloseCode]] = {code.value: code for code in CloseCode}


def named_code(code: int) -> int:
    """
    Return a close code as applications receive it.

    :returns: the member of `CloseCode`, if the code is registered there; else a plain ``int``, such
        as those from 3000. Both are equal to the number.
    """
    return _NAMED.get(code) or int(code)


class WebSocketViolation(RemoteProtocolError):  # noqa: N818 - it says whose error it is
    """
    The peer broke a rule of WebSockets or exceeded a limit. A close frame answers the violation.

    A handler may raise it for a rule of the application.

    :ivar code: the code of the close frame, such as 1002; a `CloseCode` if it has a name there.
    :ivar reason: the text of the close frame; at most 123 bytes in UTF-8.
    """

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"WebSocket peer: {reason} (close code {code:d})")
        self.code = named_code(code)
        self.reason = reason


def check_code(code: int) -> int:
    """
    Check the code of a close frame to be sent.

    WinRT accepts 1000 to 1003, 1005, 1007 to 1010 and 3000 to 4999. 1011 to 1014 were registered
    later.

    :param code: 1005 for an empty close frame.
    :returns: the code, as `named_code` does.
    :raises ValueError: when a close frame cannot carry it.
    :raises TypeError: when it is not a whole number.
    """
    code = checked_integer(code, "code")
    if code not in _SENT_CODES and code != CloseCode.NO_STATUS_RECEIVED:
        raise ValueError(
            f"a close code is 1000 to 1003, 1005, 1007 to 1014 or 3000 to 4999, not {code}"
        )
    return named_code(code)


def check_reason(code: int, reason: str) -> bytes:
    """
    Check the reason of a close frame to be sent.

    :param reason: at most 123 bytes in UTF-8; empty with code 1005.
    :returns: the reason in UTF-8.
    :raises ValueError: when it is longer, has no form in UTF-8, or 1005 has a reason.
    """
    encoded = reason.encode("utf-8")
    if len(encoded) > MAX_REASON:
        raise ValueError(f"a close reason has {MAX_REASON} bytes at most, not {len(encoded)}")
    if encoded and code == CloseCode.NO_STATUS_RECEIVED:
        raise ValueError("close code 1005 stands for an empty frame, which has no reason")
    return encoded


def encode_close(code: int, reason: str = "") -> bytes:
    """
    Return the payload of a close frame; empty for code 1005.

    :raises ValueError: when the code or the reason cannot be sent.
    :raises TypeError: when the code is not a whole number.
    """
    code = check_code(code)
    encoded = check_reason(code, reason)
    if code == CloseCode.NO_STATUS_RECEIVED:
        return b""
    return code.to_bytes(_CODE_SIZE, "big") + encoded


def decode_close(payload: bytes) -> tuple[int, str]:
    """
    Return the code and the reason of a close frame; 1005 and an empty text if it has no payload.

    The code is a `CloseCode` if it has a name there.

    :raises WebSocketViolation: 1002 when the payload has one byte or a code that is never sent;
        1007 when the reason is not UTF-8.
    """
    if not payload:
        return CloseCode.NO_STATUS_RECEIVED, ""
    if len(payload) < _CODE_SIZE:
        raise WebSocketViolation(CloseCode.PROTOCOL_ERROR, "close frame of one byte")
    code = int.from_bytes(payload[:_CODE_SIZE], "big")
    if code not in _SENT_CODES:
        raise WebSocketViolation(CloseCode.PROTOCOL_ERROR, f"close code {code}, which is not sent")
    try:
        return named_code(code), str(payload[_CODE_SIZE:], "utf-8")
    except UnicodeDecodeError:
        raise WebSocketViolation(
            CloseCode.INVALID_PAYLOAD_DATA, "close reason that is not UTF-8"
        ) from None
