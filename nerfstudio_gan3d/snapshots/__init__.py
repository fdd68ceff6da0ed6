"""Published official weights: what their tensors are called here."""
