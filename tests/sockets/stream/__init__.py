"""Tests of `twsock.sockets.stream`."""
