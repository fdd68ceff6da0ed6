"""Meshes, pictures and videos from a trained checkpoint."""
