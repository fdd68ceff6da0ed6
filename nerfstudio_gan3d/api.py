"""A trained model from Python in three lines.

gan = nerfstudio_gan3d.load("ballgan-cars64")
scene = gan.scene(seed=3, truncation=0.7)
images = gan.render(scene, [(30, 15), (120, 15)])  # images.rgb [2, H, W, 3], float32 in 0..1
"""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import trimesh
from jaxtyping import Float
from nerfstudio.cameras.cameras import Cameras
from torch import Tensor

from nerfstudio_gan3d.api_inputs import (
    CameraInput,
    PictureInput,
    camera_labels,
    check_used,
    image_view,
    label_view,
    one_camera,
    sized_cameras,
)
from nerfstudio_gan3d.api_outputs import (
    Images,
    Output,
    chosen_outputs,
    classes_palette,
    render_images,
    scene_splats,
)
from nerfstudio_gan3d.cameras import labels_to_cameras
from nerfstudio_gan3d.export.cut import cut_off
from nerfstudio_gan3d.export.inputs import plane_behind
from nerfstudio_gan3d.export.mesh import extract_mesh
from nerfstudio_gan3d.export.splat_refine import Rasterizer
from nerfstudio_gan3d.export.splats import (
    DEFAULT_CELLS,
    DEFAULT_COUNT,
    DEFAULT_SIZE,
    DEFAULT_STEPS,
)
from nerfstudio_gan3d.image_views import ImageView
from nerfstudio_gan3d.latents import Appearance, LabelView, SceneRequest
from nerfstudio_gan3d.models.config import LabelConfig
from nerfstudio_gan3d.pretrained import bundled_names, unpack
from nerfstudio_gan3d.rendering.splatting import Splats
from nerfstudio_gan3d.run import Run, load_run
from nerfstudio_gan3d.scene import Scene


@dataclass(frozen=True, eq=False, repr=False)
class Gan:
    """A trained model: Scenes, their pictures, meshes and splats. No gradients are recorded.

    Cameras are given in one of three ways: rows of (azimuth, elevation) in degrees ``[V, 2]``
    (azimuth 0 looks at the front, +z, and 90 stands at +x; y is up), which stand at the distance of
    the data set's cameras; camera labels ``[V, 25]`` (see `nerfstudio_gan3d.cameras`); or
    nerfstudio's Cameras, in nerfstudio's world, z up.
    """

    run: Run
    """The run that was opened: generator, configuration, progress."""

    def __repr__(self) -> str:
        method, step = self.run.config.method_name, self.run.step
        return f"Gan({method} in {self.run.folder}, step {step}, on {self.device})"

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.run.device

    @property
    def size(self) -> int:
        """Side in pixels of the images that the model was trained for."""
        return self.run.settings.image_resolution

    @property
    def labels(self) -> LabelConfig | None:
        """What the label maps of the model hold: kind, number, names and colours of the classes;
        None for a model without labels."""
        return self.run.generator.labels

    def scene(
        self,
        seed: int = 0,
        truncation: float = 1.0,
        *,
        background_seed: int | None = None,
        appearance_seed: int | None = None,
        other_seed: int | None = None,
        other_appearance_seed: int | None = None,
        interpolation: float = 0.0,
        appearance_interpolation: float | None = None,
        mix_seed: int | None = None,
        mix_levels: Sequence[int] = (),
        truncation_cutoff: int | None = None,
        conditioning_camera: CameraInput | None = None,
        label_map: int | PictureInput | LabelView | None = None,
        label_camera: CameraInput | None = None,
        other_label_map: int | PictureInput | LabelView | None = None,
        other_label_camera: CameraInput | None = None,
        appearance: Appearance | None = None,
        image: int | PictureInput | ImageView | None = None,
        depth: PictureInput | None = None,
    ) -> Scene:
        """One Scene.

        Args:
            seed: Of the latent.
            truncation: Psi: 1 is the full variety, 0 the mean Scene.
            background_seed: Of models with a background; None is ``seed``.
            appearance_seed: Of the colours, of models with a shape code and an appearance code;
                None is ``seed``.
            other_seed: At the far end of an interpolation.
            other_appearance_seed: The same for the colours.
            interpolation: Place between this end (0) and the far one (1).
            appearance_interpolation: The same for the colours; None is ``interpolation``.
            mix_seed: Its latents take the place of those of ``mix_levels``, 0 the coarsest.
            mix_levels: Levels of the latent w.
            truncation_cutoff: Levels, from the coarsest, that truncation acts on; None is all.
            conditioning_camera: Pose that generators with pose conditioning are shown; None is the
                neutral one.
            label_map: Of models that take one: number of one that the checkpoint keeps (0 to 15), a
                file, class ids ``[R, R]`` or the classes' colours ``[R, R, 3]`` as an array of
                integers, or an image of Pillow. R is `size`. None is the first kept one.
            label_camera: Where a label map of one's own is seen from: (azimuth, elevation), 25
                numbers, or nerfstudio Cameras. None is the pose that the viewer saved beside a
                file, or else the front.
            other_label_map: At the far end of the interpolation.
            other_label_camera: Where that is seen from.
            appearance: A latent w of the colours, of models that take label maps.
            image: Of models that take images: number of one that the checkpoint keeps (0 to 15), a
                file, RGB ``[H, W, 3]`` (0 to 255, or floats of 0 to 1), or an image of Pillow. Its
                middle square is taken. None is the first kept one.
            depth: Of the image: a 16-bit grey file, 16-bit integers ``[H, W]`` as one holds, or
                floats of 0 (near) to 1 (far). None is NAME_depth.png beside the image's file.

        Raises:
            ValueError: For what the model does not have or cannot use.
        """
        request = SceneRequest(
            seed=seed,
            background_seed=background_seed,
            truncation=truncation,
            other_seed=other_seed,
            interpolation=interpolation,
            mix_seed=mix_seed,
            mix_levels=tuple(mix_levels),
            camera_label=self._conditioning(conditioning_camera),
            truncation_cutoff=truncation_cutoff,
            label=self._label_map("label_map", label_map, label_camera) or 0,
            other_label=self._label_map("other_label_map", other_label_map, other_label_camera),
            appearance=appearance,
            appearance_seed=appearance_seed,
            other_appearance_seed=other_appearance_seed,
            appearance_interpolation=appearance_interpolation,
            image=self._image(image, depth),
        )
        check_used(self.run, request)
        return self.run.scene(request)

    def orbit(
        self, azimuth_deg: Sequence[float], elevation_deg: float | Sequence[float] = 15.0
    ) -> Float[Tensor, "v 25"]:
        """Camera labels around the object, as angles in degrees place them: see `Gan`."""
        return self.run.orbit(azimuth_deg, elevation_deg)

    def render(
        self,
        scene: Scene,
        cameras: CameraInput,
        size: int | None = None,
        outputs: Sequence[Output] | None = None,
        background: tuple[float, float, float] | None = None,
    ) -> Images:
        """Pictures of a Scene.

        Args:
            scene: One Scene (B = 1).
            cameras: Angles ``[V, 2]``, camera labels ``[V, 25]``, or nerfstudio's Cameras.
            size: Side of the square pictures in pixels; None is `size` of the model. nerfstudio's
                Cameras have sizes of their own.
            outputs: Which arrays of `Images` are made beside rgb, depth and alpha, which always
                are: labels, rgba. None is the labels of models that have some.
            background: RGB, 0 to 1, that stands behind the foreground in rgb in place of the
                Scene's own background.

        Raises:
            ValueError: If cameras, size or outputs are none that there can be, or there are several
                Scenes in one.
        """
        wanted = chosen_outputs(self.run, outputs)
        if scene.batch_size != 1:
            raise ValueError(f"scene holds {scene.batch_size} Scenes; give one")
        if isinstance(cameras, Cameras):
            if size is not None:
                raise ValueError(
                    f"size = {size}: nerfstudio Cameras have a size of their own; leave it out, or "
                    "change theirs with rescale_output_resolution"
                )
            placed = sized_cameras(cameras)
        else:
            side = self.size if size is None else size
            if side < 1:
                raise ValueError(f"size = {size}: give a positive number of pixels")
            placed = labels_to_cameras(camera_labels(self.run, cameras), side, side)
        return render_images(self.run, scene, placed, wanted, background)

    def mesh(
        self,
        scene: Scene,
        resolution: int = 128,
        *,
        level: float | Literal["auto"] = "auto",
        color: Literal["rgb", "labels", "none"] = "rgb",
        largest_component: bool = False,
        texture: int = 0,
        behind: float | None = None,
    ) -> trimesh.Trimesh:
        """The surface of one Scene, as `gan3d mesh` extracts it: object-world units, y up.

        Args:
            scene: One Scene (B = 1).
            resolution: Cells along the longest side of the Scene's box.
            level: Density, or of Scenes made of surfaces occupancy, of the surface.
            color: Of the vertices; labels: the colour of the class with the highest score, with the
                class ids as ``vertex_attributes["label"]``.
            largest_component: Keep only the connected part with the largest area.
            texture: Side of a texture in texels in place of colours of the vertices; 0 makes none.
            behind: Of models that take images: leaves out what lies farther than this behind the
                origin, in half sides of the box, -1 to 1.

        `nerfstudio_gan3d.export.mesh.write_mesh` writes PLY, OBJ and GLB.

        Raises:
            ValueError: If there is no surface, or there are no classes to colour.
        """
        palette = classes_palette(self.run) if color == "labels" else ()
        if behind is not None:
            scene = cut_off(scene, plane_behind(self.run, behind, "behind"))
        return extract_mesh(
            scene,
            resolution,
            level,
            color,
            largest_component,
            self.device,
            palette,
            texture=texture,
        )

    def splats(
        self,
        scene: Scene,
        count: int = DEFAULT_COUNT,
        *,
        size: float = DEFAULT_SIZE,
        steps: int = DEFAULT_STEPS,
        resolution: int = DEFAULT_CELLS,
        level: float | Literal["auto"] = "auto",
        color: Literal["rgb", "labels"] = "rgb",
        behind: float | None = None,
        rasterizer: Rasterizer = "auto",
    ) -> Splats:
        """The foreground of one Scene as 3D Gaussians, as `gan3d splats` makes them: object-world
        units, y up.

        Args:
            scene: One Scene (B = 1).
            count: Splats that are put on the surface; those that end up invisible are dropped.
            size: Of a splat along the surface before it is refined (a standard deviation), in mean
                distances to the four nearest others.
            steps: In which the splats learn to look like the Scene; 0 computes them directly, in a
                moment.
            resolution: Cells of the grid that finds the surface, along the longest side of the box,
                or its depth (z) where Scenes are made of images.
            level: Which surface, as `mesh` takes it.
            color: rgb are the Scene's own colours; labels those of the classes with the highest
                score.
            behind: Of models that take images: leaves out what lies farther than this behind the
                origin, in half sides of the box, -1 to 1.
            rasterizer: What draws the splats meanwhile: torch runs everywhere, gsplat needs a CUDA
                GPU; auto is gsplat where the model is on one.

        `nerfstudio_gan3d.export.splat_files.write_splats` writes PLY and .splat.

        Raises:
            ValueError: If there is no surface, there are no classes to colour, the run does not say
                where its cameras stand, or gsplat is asked for without a GPU.
        """
        return scene_splats(
            self.run,
            scene,
            count,
            size,
            steps=steps,
            resolution=resolution,
            level=level,
            palette=classes_palette(self.run) if color == "labels" else (),
            behind=behind,
            rasterizer=rasterizer,
        )

    def _conditioning(self, camera: CameraInput | None) -> tuple[float, ...] | None:
        if camera is None:
            return None
        return tuple(one_camera(self.run, camera, "conditioning_camera")[0].tolist())

    def _label_map(
        self,
        name: str,
        source: int | PictureInput | LabelView | None,
        camera: CameraInput | None,
    ) -> LabelView | None:
        if source is not None:
            return label_view(self.run, source, camera, name)
        if camera is not None:
            raise ValueError(f"{name}: only its camera is given; give the map, or neither")
        return None

    def _image(
        self, image: int | PictureInput | ImageView | None, depth: PictureInput | None
    ) -> int | ImageView:
        if image is not None:
            return image_view(self.run, image, depth)
        if depth is not None:
            raise ValueError("depth: it is that of an image; give image, too")
        return 0


def load(source: str | Path, device: torch.device | str | None = None) -> Gan:
    """Opens a trained model; needs neither its data set nor the folder that it was trained in.

    config.yml holds Python objects, and reading it can run code: open only runs whose origin you
    trust. Checkpoints are read as data.

    Args:
        source: A run's folder or its config.yml (the newest whole checkpoint is loaded), one of its
            checkpoints ``step-*.ckpt``, or the name of a bundled checkpoint, such as
            "ballgan-cars64". That is unpacked into a temporary folder, which goes with the model;
            `gan3d pretrained` makes a run that stays. A folder of the same name is given as
            "./ballgan-cars64", or as a Path.
        device: Where to put the model; None is a CUDA device if there is one, else the CPU.

    Raises:
        ValueError: If there is no such thing, it cannot be read, or there is no such device.
    """
    place = _device(device)
    if isinstance(source, str) and source in bundled_names():
        folder = tempfile.mkdtemp(prefix=f"{source}-")
        try:
            unpack(source, Path(folder))
            run = load_run(folder, place)
        except BaseException:
            # Interrupted or not, nothing stays behind.
            shutil.rmtree(folder, ignore_errors=True)
            raise
        # As long as the run is there, and when the program ends.
        weakref.finalize(run, shutil.rmtree, folder, ignore_errors=True)
        return Gan(run)
    if not Path(source).expanduser().exists():
        raise ValueError(
            f"{source}: there is no such file or folder; give the folder of a run, its config.yml, "
            f"one of its checkpoints step-*.ckpt, or one of {', '.join(bundled_names())}"
        )
    return Gan(load_run(source, place))


def _device(device: torch.device | str | None) -> torch.device | None:
    if device is None:
        return None
    try:
        found = torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"device = {device!r}: give cpu, cuda, or cuda:N") from error
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"device = {str(found)!r}: torch finds {torch.cuda.device_count()} CUDA devices; give "
            "cpu, or leave it out"
        )
    return found
