"""EG3D and BallGAN as their papers and releases train them, in plain torch.

The published programs cannot be part of this project: their licences forbid it. This is a
restatement in torch's own operators, written from a description of what they compute, with tensors
under their official names; tests hold it against stored outputs and gradients of the originals.
`benchmarks.training` measures it as what ours is compared with.

What makes published training what it is, and is kept: bias, activation, gain and clamp as passes of
their own, scaling before and after a modulated convolution, colours that are sorted along rays and
averaged between neighbours, and phases that each start from new latents and end in an optimiser's
step: the generator's loss, every 4th time the density's variation (and BallGAN's background loss),
the discriminator's loss, every 16th time R1. BallGAN's release leaves both regularisers of the
generator out unless it is told to use them; its paper has the background loss.

Where the description leaves an order of operations open, the faster one is taken.
"""
