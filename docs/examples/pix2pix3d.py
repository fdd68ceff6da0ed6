"""A car of pix2pix3D from a label map, that map edited, and the labels of both.

python docs/examples/pix2pix3d.py pix2pix3d-cars64 out
python docs/examples/pix2pix3d.py RUN/config.yml out --map drawing.png --azimuth 90
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

import nerfstudio_gan3d


def main() -> None:
    """Writes orbit.png, labels.png (class ids: a label map), edited.png and mesh.ply."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", help="a run's folder, or the name of a bundled checkpoint")
    parser.add_argument("output", type=Path, help="folder to write to")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--map", type=Path, help="a label map of your own; otherwise a kept one")
    parser.add_argument("--azimuth", type=float, default=0.0, help="where it is seen from, degrees")
    parser.add_argument("--resolution", type=int, default=128, help="cells of the mesh's grid")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)

    gan = nerfstudio_gan3d.load(options.run)
    if options.map is None:
        scene = gan.scene(options.seed, label_map=0)
    else:
        scene = gan.scene(options.seed, label_map=options.map, label_camera=(options.azimuth, 0))

    around = [(azimuth, 15) for azimuth in range(0, 360, 60)]
    images = gan.render(scene, around)
    assert images.labels is not None
    save(images.rgb, options.output / "orbit.png")

    # The Scene's labels, seen from the side, are a label map: edit it, and make a Scene of that.
    side = (90, 0)
    drawn = gan.render(scene, [side]).labels
    assert drawn is not None
    label_map = drawn[0]
    Image.fromarray(label_map).save(options.output / "labels.png")
    edited = label_map.copy()
    edited[:, : gan.size // 2] = 0
    half = gan.scene(options.seed, label_map=edited, label_camera=side)
    save(gan.render(half, [side, *around]).rgb, options.output / "edited.png")

    # Vertices in the colours of their classes.
    mesh = gan.mesh(scene, options.resolution, color="labels")
    mesh.export(options.output / "mesh.ply")


def save(pictures: np.ndarray, file: Path) -> None:
    """Writes pictures [V, H, W, 3] of 0 to 1 side by side."""
    side_by_side = np.concatenate(list(pictures), axis=1)
    Image.fromarray(np.rint(side_by_side * 255).astype(np.uint8)).save(file)


if __name__ == "__main__":
    main()
