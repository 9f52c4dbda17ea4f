"""Benchmarks: each compares, in one run, with what one would use instead; `make bench` runs all of them."""
