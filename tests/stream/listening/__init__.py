"""Tests of `twsock.stream.listening`."""
