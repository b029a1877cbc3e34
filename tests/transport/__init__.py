"""Tests of `twsock.transport`."""
