"""Sliders of the viewer that only some models have: a range of levels, an appearance code."""

from __future__ import annotations

from nerfstudio.viewer.viewer_elements import ViewerParameter, ViewerSlider
from viser import ViserServer


class ViewerLevels(ViewerParameter[tuple[int, int]]):
    """A slider with two handles: the first and the last of a range of levels."""

    def __init__(
        self, name: str, levels: tuple[int, int], default_value: tuple[int, int], hint: str
    ) -> None:
        super().__init__(name, default_value)
        self.levels = levels
        self.hint = hint

    def _create_gui_handle(self, viser_server: ViserServer) -> None:
        self.gui_handle = viser_server.gui.add_multi_slider(
            self.name, *self.levels, 1, self.default_value, hint=self.hint
        )


class CodeControls:
    """What models with a shape code and an appearance code have besides their shape's sliders.

    Args:
        seed: the appearance's seed at first.
        seeds: the largest seed.
    """

    def __init__(self, seed: int, seeds: int) -> None:
        self.seed = ViewerSlider(
            "Appearance seed", seed, 0, seeds, 1, hint="Colours alone: the shape stays as it is"
        )
        self.interpolation = ViewerSlider(
            "Appearance: towards other seed",
            0.0,
            0.0,
            1.0,
            0.01,
            hint="0 shows the appearance seed, 1 the other seed",
        )
