"""What `ns-train NAME` starts with: one file per method."""
