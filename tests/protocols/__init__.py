"""Tests of `twsock.protocols`."""
