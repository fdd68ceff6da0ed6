"""nerfstudio models: one file per method on a common base."""
