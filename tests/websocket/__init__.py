"""Tests of `twsock.websocket`."""
