"""Tests of `twsock.errors`."""
