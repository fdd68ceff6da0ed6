"""A photograph with depth to a Scene of G3DR: views from its sides, their depth, and a mesh.

python docs/examples/g3dr.py g3dr-cars64 out
python docs/examples/g3dr.py RUN/config.yml out --image photo.jpg --depth photo_depth.png
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

import nerfstudio_gan3d
from nerfstudio_gan3d.export.mesh import write_mesh


def main() -> None:
    """Writes orbit.png, depth.png (16 bits: millimetres where a unit is a metre) and mesh.glb."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", help="a run's folder, or the name of a bundled checkpoint")
    parser.add_argument("output", type=Path, help="folder to write to")
    parser.add_argument("--image", type=Path, help="an image of your own; otherwise a kept one")
    parser.add_argument("--depth", type=Path, help="its depth; otherwise NAME_depth.png beside it")
    parser.add_argument("--resolution", type=int, default=128, help="cells of the mesh's grid")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)

    gan = nerfstudio_gan3d.load(options.run)
    if options.image is None:
        scene = gan.scene(image=0)
    else:
        scene = gan.scene(image=options.image, depth=options.depth)

    # The image is seen from (0, 0); views far from there show what nobody photographed.
    sides = [(azimuth, 0) for azimuth in (-20, -10, 0, 10, 20)]
    images = gan.render(scene, sides)
    side_by_side = np.concatenate(list(images.rgb), axis=1)
    Image.fromarray(np.rint(side_by_side * 255).astype(np.uint8)).save(options.output / "orbit.png")

    depth = np.concatenate(list(images.depth), axis=1)
    thousandths = np.rint(depth * 1000).clip(0, 65535).astype(np.uint16)
    Image.fromarray(thousandths).save(options.output / "depth.png")

    write_mesh(gan.mesh(scene, options.resolution), options.output / "mesh.glb")


if __name__ == "__main__":
    main()
