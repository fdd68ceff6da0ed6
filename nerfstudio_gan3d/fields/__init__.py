"""What a Scene is made of: hash grid, tri-plane, background sphere and decoders."""
