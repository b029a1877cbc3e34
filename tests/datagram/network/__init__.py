"""Tests of `twsock.datagram.network`."""
