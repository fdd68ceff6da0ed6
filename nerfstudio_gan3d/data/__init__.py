"""Data sets, their reading, checking and augmentation, and the bundled cars."""
