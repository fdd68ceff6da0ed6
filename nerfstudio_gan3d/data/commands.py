"""What the commands of ``gan3d data`` do; they return the text to print."""

from __future__ import annotations

import zipfile
from pathlib import Path

from nerfstudio_gan3d.data.check import check_set, pose_histogram
from nerfstudio_gan3d.data.dataset import ImageSet
from nerfstudio_gan3d.data.errors import DataError
from nerfstudio_gan3d.data.sample_data import bundled_cars


def data_check(
    directory: Path, histogram: Path | None = None, num_classes: int | None = None
) -> str:
    """Read every file of a data set and report what it has, or the first thing that is wrong.

    Args:
        directory: folder or zip of images, with or without EG3D's dataset.json.
        histogram: PNG for the histogram of camera poses.
        num_classes: ids in the label maps must be smaller; by default the classes of meta.json.

    Raises:
        DataError: the first problem, in one sentence.
    """
    image_set = ImageSet(directory)
    text = check_set(image_set, num_classes).text()
    image_set.close()
    if histogram is None:
        return text
    if image_set.labels is None:
        raise DataError(f"{directory}: has no camera labels, so there is no pose histogram")
    return f"{text}\npose histogram: {pose_histogram(image_set.labels, histogram)}"


def data_edges(
    directory: Path,
    output: Path,
    sigma: float = 1.0,
    low: float = 0.1,
    high: float = 0.2,
    foreground_only: bool = False,
) -> str:
    """Draw an edge map for each photograph of a set and write both as a new set.

    Args:
        directory: folder or zip of images, with or without EG3D's dataset.json.
        output: folder to write; it must be empty or not exist yet.
        sigma: smoothing before edges are looked for, in pixels.
        low: gradient at which a line goes on.
        high: gradient at which a line begins.
        foreground_only: leave out edges that lie outside of the set's masks.

    Raises:
        DataError: the set cannot be used, lacks masks that are asked for, or the folder is not
            empty.
        OSError: the folder cannot be written.
    """
    # Only this command needs scikit-image, which takes a while to import.
    from nerfstudio_gan3d.data.edges import write_edge_set

    return write_edge_set(directory, output, sigma, low, high, foreground_only).text()


def data_cars64(directory: Path) -> str:
    """Unpack the bundled cars into a new or empty folder.

    Args:
        directory: folder to write; it must not contain anything.

    Raises:
        DataError: the folder is not empty or cannot be written.
    """
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise DataError(f"{directory}: exists and is not an empty folder; give another one")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(bundled_cars()) as archive:
            archive.extractall(directory)
    except OSError as error:
        raise DataError(f"{directory}: cannot be written ({error.strerror})") from error
    image_set = ImageSet(directory)
    return (
        f"{directory}: {len(image_set)} images of {image_set.size} x {image_set.size} pixels with "
        "camera labels, masks, depth and part labels (CC0, see PROVENANCE.txt)"
    )
