"""Tests of `twsock.sockets`."""
