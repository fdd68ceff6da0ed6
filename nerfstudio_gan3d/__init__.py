"""3D-aware generative adversarial networks as nerfstudio methods."""
