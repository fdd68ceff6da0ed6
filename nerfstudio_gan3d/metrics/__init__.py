"""Figures for generated images: distances of distributions, camera agreement, geometry, copies."""
