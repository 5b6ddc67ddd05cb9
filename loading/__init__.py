"""Files and configurations -> modules."""
