"""The measurements: see README.md in this folder."""
