"""Tests of `twsock.sockets.websocket`."""
