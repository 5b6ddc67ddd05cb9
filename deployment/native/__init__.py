"""Optional native kernels; everything works without them (deployment/native_execution.py)."""
