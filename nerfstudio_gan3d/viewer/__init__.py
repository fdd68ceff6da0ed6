"""Controls of the live viewer."""
