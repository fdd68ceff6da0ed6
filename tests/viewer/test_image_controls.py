"""Controls of models that make Scenes of images name the image exactly."""

import re

import pytest
import torch
from nerfstudio.viewer.utils import parse_object
from nerfstudio.viewer.viewer_elements import ViewerControl, ViewerElement

from nerfstudio_gan3d.cameras import labels_to_cameras
from nerfstudio_gan3d.image_views import ImageView, as_condition
from nerfstudio_gan3d.latents import SceneRequest
from nerfstudio_gan3d.models.g3dr import G3drModel
from nerfstudio_gan3d.viewer.image_controls import ImageControls
from nerfstudio_gan3d.viewer.view_controls import OUTPUTS
from tests.models.tiny_g3dr import SIDE, g3dr_config, kept_images, make_g3dr
from tests.viewer.session import ModelPipeline


@pytest.fixture(scope="module")
def kept_model() -> G3drModel:
    return make_g3dr()


@pytest.fixture
def model(kept_model: G3drModel) -> G3drModel:
    controls_of(kept_model).show(0)
    return kept_model


def controls_of(model: G3drModel) -> ImageControls:
    controls = model.controls
    assert isinstance(controls, ImageControls)
    return controls


def seen_from_the_front(model: G3drModel) -> dict[str, torch.Tensor]:
    label = model.generator_ema.canonical_labels(1)
    return model.get_outputs_for_camera(labels_to_cameras(label, SIDE, SIDE))


def test_the_first_image_is_that_of_the_configuration() -> None:
    config = g3dr_config()
    config.image = 3
    assert make_g3dr(config).request()[0] == SceneRequest(image=3)


def test_the_request_follows_the_choice(model: G3drModel) -> None:
    controls = controls_of(model)
    assert controls.request() == SceneRequest(image=0)
    controls.show(15)
    assert controls.request() == SceneRequest(image=15)
    images, distances = kept_images()
    own = ImageView(images[:1], distances[:1])
    controls.show(own)
    assert controls.request().image is own
    assert controls.image is own


@pytest.mark.parametrize("image", [-1, 16])
def test_images_that_are_not_kept_are_refused(model: G3drModel, image: int) -> None:
    controls, config = controls_of(model), g3dr_config()
    config.image = image
    sentence = f"= {image}: a checkpoint keeps the images 0 to 15"
    with pytest.raises(ValueError, match=re.escape(f"model.image {sentence}")):
        make_g3dr(config)
    controls.show(4)
    with pytest.raises(ValueError, match=re.escape(f"image {sentence}")):
        controls.show(image)
    assert controls.image == 4


def test_the_picture_is_that_of_the_chosen_image(model: G3drModel) -> None:
    images, distances = kept_images()
    generator = model.generator_ema
    pictures = []
    for index in (2, 9):
        controls_of(model).show(index)
        picture = seen_from_the_front(model)["rgb"]
        with torch.no_grad():
            scene = generator.scene(as_condition(images[index, None], distances[index, None]))
            plain = generator.render(scene, generator.canonical_labels(1)).image
        expected = (plain[0].permute(1, 2, 0) / 2 + 0.5).clamp(0, 1)
        torch.testing.assert_close(picture, expected, atol=1e-4, rtol=0)
        pictures.append(picture)
    assert (pictures[0] - pictures[1]).abs().max() > 1e-3
    # The same image as one of the user's own.
    controls_of(model).show(ImageView(images[2:3], distances[2:3]))
    torch.testing.assert_close(seen_from_the_front(model)["rgb"], pictures[0])


def test_a_scene_is_kept_until_another_image_is_chosen(model: G3drModel) -> None:
    controls_of(model).show(1)
    scene = model.scene().scene
    assert model.scene().scene is scene
    controls_of(model).show(2)
    assert model.scene().scene is not scene


def test_outputs_have_the_names_that_the_viewer_offers(model: G3drModel) -> None:
    assert set(seen_from_the_front(model)) == set(OUTPUTS) == set(controls_of(model).outputs)


def test_checkpoints_and_nerfstudio_see_the_controls_as_those_of_other_models(
    model: G3drModel,
) -> None:
    assert not [name for name in model.state_dict() if name.startswith("controls")]
    pipeline = ModelPipeline(model)
    found = parse_object(pipeline, ViewerControl, "Custom Elements")
    assert found == [("Custom Elements/model/controls", model.controls)]
    assert parse_object(pipeline, ViewerElement, "Custom Elements") == []
