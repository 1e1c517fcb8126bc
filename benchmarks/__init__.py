"""Benchmarks against the field; see the README beside this file."""
