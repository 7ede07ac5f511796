"""The parts of `benchmarks/gpu_report.py`: a file each, whose `run(rows, size, **options)` adds rows as they come."""
