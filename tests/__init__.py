"""Tests of nerfstudio-gan3d; the folders mirror the library."""
