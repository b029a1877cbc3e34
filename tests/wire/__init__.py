"""Tests of `twsock.wire`."""
