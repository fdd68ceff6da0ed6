"""Networks in plain torch: StyleGAN2 blocks, super-resolution, discriminators."""
