"""One car of BallGAN from around, without its background, as a mesh, and as splats.

python docs/examples/ballgan.py ballgan-cars64 out
python docs/examples/ballgan.py RUN/config.yml out --seed 3
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

import nerfstudio_gan3d
from nerfstudio_gan3d.export.mesh import write_mesh
from nerfstudio_gan3d.export.splat_files import write_splats


def main() -> None:
    """Writes orbit.png, foreground.png, mesh.glb and splats.ply."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", help="a run's folder, or the name of a bundled checkpoint")
    parser.add_argument("output", type=Path, help="folder to write to")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--resolution", type=int, default=128, help="cells of the mesh's grid")
    parser.add_argument("--splat-steps", type=int, default=240, help="0 is quick, and coarser")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)

    gan = nerfstudio_gan3d.load(options.run)
    scene = gan.scene(seed=options.seed, truncation=0.7)

    around = [(azimuth, 15) for azimuth in range(0, 360, 60)]
    images = gan.render(scene, around, outputs=["rgba"])
    save(images.rgb, options.output / "orbit.png")
    save(images.rgba, options.output / "foreground.png")

    mesh = gan.mesh(scene, options.resolution, largest_component=True)
    write_mesh(mesh, options.output / "mesh.glb")

    # Many splat viewers take y for pointing down.
    splats = gan.splats(scene, steps=options.splat_steps)
    write_splats(splats, options.output / "splats.ply", up="y-down")


def save(pictures: np.ndarray | None, file: Path) -> None:
    """Writes pictures [V, H, W, C] of 0 to 1 side by side."""
    assert pictures is not None
    side_by_side = np.concatenate(list(pictures), axis=1)
    Image.fromarray(np.rint(side_by_side * 255).astype(np.uint8)).save(file)


if __name__ == "__main__":
    main()
