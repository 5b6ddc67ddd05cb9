"""Optional native kernels; everything works without them (models/native_execution.py)."""
