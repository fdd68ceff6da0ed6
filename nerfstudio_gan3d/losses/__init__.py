"""Loss functions of tensors, named with the symbols of their papers."""
