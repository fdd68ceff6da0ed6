"""Texts and pictures of the viewer's panels are what they were meant to be."""

import base64
from io import BytesIO

import numpy as np
from PIL import Image

from nerfstudio_gan3d.viewer.panel import as_text, data_url


def test_pictures_are_enlarged_without_smoothing() -> None:
    url = data_url(np.array([[[255, 0, 0], [0, 0, 255]]] * 2, np.uint8))
    image = Image.open(BytesIO(base64.b64decode(url.removeprefix("data:image/png;base64,"))))
    assert image.size == (256, 256)
    pixels = np.asarray(image)
    assert (pixels[:, :128] == (255, 0, 0)).all()
    assert (pixels[:, 128:] == (0, 0, 255)).all()


def test_names_of_files_mean_nothing_to_markdown() -> None:
    assert as_text("00000/img00000001.png") == "00000/img00000001.png"
    assert as_text("a_b {1}.png") == r"a\_b \{1\}.png"
    # viser looks for "![" and reads the file behind it.
    assert "![" not in as_text("![](/secret.png)")
