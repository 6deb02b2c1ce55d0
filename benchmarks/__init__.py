"""Measurements, each beside a named baseline in the same run. `make bench` runs `benchmarks.engine`.

They print ratios, and absolute figures only next to them: machines differ and are shared. Nothing here asserts.
"""
