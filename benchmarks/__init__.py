"""What vds costs: run with `python -m benchmarks`."""
