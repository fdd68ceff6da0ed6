"""From the rays of a Scene to pixels: samplers, compositing and the renderer."""
