"""Tests of `benchmarks`: that it measures what it says, never how fast anything is."""
