"""Tests of `twsock.sockets.datagram`."""
