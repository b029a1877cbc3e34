"""Tests of `twsock.datagram`."""
