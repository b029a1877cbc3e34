"""
WebSockets (:rfc:`6455`, :rfc:`7692`): messages above one stream connection.

``masking``, ``frames``, ``close_frame`` and ``messages`` are the wire format, without I/O and
clock.
"""

__all__: list[str] = []
