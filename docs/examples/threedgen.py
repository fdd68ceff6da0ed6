"""Shapes and appearances of 3DGEN: rows of one shape, columns of one appearance, and a mesh.

python docs/examples/threedgen.py 3dgen-cars64 out
python docs/examples/threedgen.py RUN/config.yml out --shapes 3 --appearances 5
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

import nerfstudio_gan3d
from nerfstudio_gan3d.export.mesh import write_mesh


def main() -> None:
    """Writes orbit.png, grid.png, way.png (from shape to shape) and mesh.glb."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", help="a run's folder, or the name of a bundled checkpoint")
    parser.add_argument("output", type=Path, help="folder to write to")
    parser.add_argument("--shapes", type=int, default=2, help="rows of the grid")
    parser.add_argument("--appearances", type=int, default=3, help="columns of the grid")
    parser.add_argument("--resolution", type=int, default=128, help="cells of the mesh's grid")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)

    gan = nerfstudio_gan3d.load(options.run)
    scene = gan.scene(seed=0)
    around = [(azimuth, 15) for azimuth in range(0, 360, 60)]
    save([gan.render(scene, around).rgb], options.output / "orbit.png")

    front = [(30, 15)]
    grid = [
        np.concatenate(
            [
                gan.render(gan.scene(shape, appearance_seed=look), front).rgb
                for look in range(options.appearances)
            ]
        )
        for shape in range(options.shapes)
    ]
    save(grid, options.output / "grid.png")

    # The shape goes from seed 0 to seed 1 while the appearance stays.
    way = [
        gan.scene(0, other_seed=1, interpolation=place, appearance_interpolation=0.0)
        for place in (0.0, 0.5, 1.0)
    ]
    save([np.concatenate([gan.render(one, front).rgb for one in way])], options.output / "way.png")

    # A surface, not a density: the mesh is where the occupancy is 1/2.
    write_mesh(gan.mesh(scene, options.resolution), options.output / "mesh.glb")


def save(rows: list[np.ndarray], file: Path) -> None:
    """Writes rows of pictures [V, H, W, 3] of 0 to 1."""
    sheet = np.concatenate([np.concatenate(list(row), axis=1) for row in rows])
    Image.fromarray(np.rint(sheet * 255).astype(np.uint8)).save(file)


if __name__ == "__main__":
    main()
