"""Tests of `twsock.services.restart`."""
