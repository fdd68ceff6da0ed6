"""What a training takes over from the networks that it starts from."""

import json
from pathlib import Path

from nerfstudio_gan3d.models.ballgan import ballgan_tiny
from nerfstudio_gan3d.training.resume import _adopted


def test_networks_of_before_a_setting_take_its_default() -> None:
    model = ballgan_tiny()
    networks = json.dumps({"field": {"hidden_dim": 16}, "conventions": "reference"})
    values = json.loads(networks)
    assert _adopted(model, values, networks, Path("old.ckpt")) == networks
    assert (model.field.hidden_dim, model.field.palette, model.conventions) == (16, 0, "reference")
    # What the networks do not name stays as it was configured.
    assert model.losses.wrong_camera == 0.5
