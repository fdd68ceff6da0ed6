"""An appearance is found again in an image that has it."""

import pytest
import torch

from nerfstudio_gan3d.cameras import orbit_labels
from nerfstudio_gan3d.latents import Appearance, LabelView, SceneRequest, request_latents
from nerfstudio_gan3d.models.appearance import fit_appearance, surroundings
from nerfstudio_gan3d.models.config import LabelConfig
from nerfstudio_gan3d.models.gan import make_generator
from nerfstudio_gan3d.models.generator import Generator
from tests.models import tiny

SIDE, CLASSES, STEPS = 16, 3, 30


def labelled_generator(background: bool = True) -> Generator:
    """A nearly solid thing; where it is half transparent, images cannot be matched exactly."""
    torch.manual_seed(0)
    config = tiny.model_config(image_resolution=SIDE, neural_resolution=SIDE)
    config.background = background
    config.field.density_scale = 300.0
    config.labels = LabelConfig("seg", CLASSES, encoder_base=64, encoder_max=8)
    return make_generator(config).eval().requires_grad_(False)


def a_view() -> LabelView:
    ids = torch.arange(SIDE * SIDE).view(1, 1, SIDE, SIDE) % CLASSES
    return LabelView(ids.to(torch.uint8), orbit_labels(torch.ones(1), torch.ones(1) / 4, 1.9))


def picture(generator: Generator, view: LabelView, request: SceneRequest) -> torch.Tensor:
    with torch.no_grad():
        scene = generator.scene(request_latents(generator, request))
        return generator.render(scene, view.pose).image


def error_of(generator: Generator, view: LabelView, image: torch.Tensor, worn: Appearance) -> float:
    # The background's seed is that of the image.
    made = picture(generator, view, SceneRequest(seed=777, label=view, appearance=worn))
    return float((made - image).square().mean())


@pytest.mark.parametrize("background", [True, False])
def test_the_appearance_of_a_generated_image_is_found(background: bool) -> None:
    """The image rendered again differs from the given one by less than a tenth of the squared error
    that the mean appearance has."""
    generator, view = labelled_generator(background), a_view()
    image = picture(generator, view, SceneRequest(seed=777, label=view))
    errors: list[float] = []
    found = fit_appearance(generator, view, image, STEPS, lambda _, error: errors.append(error))
    assert len(errors) == STEPS
    assert min(errors) < 0.9 * errors[0]
    mean = Appearance(generator.mapping.w_avg[-1:])
    assert error_of(generator, view, image, found) < error_of(generator, view, image, mean) / 10


def test_what_is_behind_the_thing_plays_no_part() -> None:
    """Two images that differ in their background only have one appearance, but for outlines."""
    generator, view = labelled_generator(), a_view()
    image = picture(generator, view, SceneRequest(seed=777, label=view))
    other = picture(generator, view, SceneRequest(seed=777, background_seed=5, label=view))
    assert not torch.allclose(image, other, atol=0.05)
    first, second = (fit_appearance(generator, view, each, STEPS) for each in (image, other))
    mean = Appearance(generator.mapping.w_avg[-1:])
    scale = error_of(generator, view, image, mean)
    assert error_of(generator, view, image, first) < scale / 10
    assert error_of(generator, view, image, second) < scale / 10


def test_what_is_behind_the_thing_is_guessed_from_beside_it() -> None:
    """Left of the thing all is of one colour, right of it of another one."""
    side = 20
    alpha, image = torch.zeros(side, side, 1), torch.zeros(side, side, 3)
    image[:, : side // 2], image[:, side // 2 :] = torch.tensor([0.2, 0.4, 0.6]), 0.9
    expected = image.clone()
    alpha[8:12, 3:7] = 1.0
    image[8:12, 3:7] = torch.rand(4, 4, 3, generator=torch.Generator().manual_seed(0))
    guess = surroundings(image.view(1, -1, 3), alpha.view(1, -1, 1)).view(side, side, 3)
    # Seven and more pixels, three and a half standard deviations, from the other colour.
    torch.testing.assert_close(guess[:, :3], expected[:, :3], atol=2e-3, rtol=0)
    torch.testing.assert_close(guess[8:12, 3:5], expected[8:12, 3:5], atol=0.05, rtol=0)
    # Where the thing is everywhere there is nothing to guess from; its mean is as good as any.
    full = torch.ones(1, side * side, 1)
    everywhere = surroundings(torch.full((1, side * side, 3), 0.3), full)
    torch.testing.assert_close(everywhere, torch.full_like(everywhere, 0.3))


def test_the_search_leaves_the_generator_as_it_is() -> None:
    generator, view = labelled_generator(), a_view()
    before = {name: value.clone() for name, value in generator.state_dict().items()}
    image = tiny.images(1, SIDE)
    errors: list[float] = []
    with torch.no_grad():  # As the viewer's threads may be.
        fit_appearance(generator, view, image, 3, lambda _, error: errors.append(error))
    assert len(errors) == 3
    after = generator.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert all(parameter.grad is None for parameter in generator.parameters())


def test_impossible_searches_are_refused() -> None:
    image = tiny.images(1, SIDE)
    with pytest.raises(ValueError, match="steps = 0: give 1 or more"):
        fit_appearance(labelled_generator(), a_view(), image, 0)
    with pytest.raises(ValueError, match="takes no label maps"):
        fit_appearance(tiny.make_generator(), a_view(), image)
