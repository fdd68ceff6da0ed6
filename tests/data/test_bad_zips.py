"""Zip files that are damaged, lie about what they hold, or leave their folder."""

import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from nerfstudio_gan3d.data.archive import open_tree
from nerfstudio_gan3d.data.check import check_set
from nerfstudio_gan3d.data.dataset import DataError, ImageSet
from tests.data.sets import encode, files, image, write_zip
from tests.data.test_bad_input import LAST, PNG, check_sentence


def overwrite(field: int, value: int) -> Callable[[Path, int], None]:
    """Sets a 2-byte field of a member's entry in the central directory."""

    def change(path: Path, entry: int) -> None:
        data = bytearray(path.read_bytes())
        data[entry + field : entry + field + 2] = value.to_bytes(2, "little")
        path.write_bytes(data)

    return change


def spoil(path: Path, entry: int) -> None:
    """Overwrites the middle of what is stored of a member."""
    data = bytearray(path.read_bytes())
    size = int.from_bytes(data[entry + 20 : entry + 24], "little")
    start = int.from_bytes(data[entry + 42 : entry + 46], "little") + 30 + len(LAST_FILE)
    data[start + size // 2 : start + size // 2 + 16] = b"\xff" * 16
    path.write_bytes(data)


def not_text(place: str) -> Callable[[Path, int], None]:
    """Says that the member's name is UTF-8, and makes it something else in one of two places."""

    def change(path: Path, entry: int) -> None:
        data = bytearray(path.read_bytes())
        local = int.from_bytes(data[entry + 42 : entry + 46], "little")
        flags, name = (entry + 8, entry + 46) if place == "directory" else (local + 6, local + 30)
        data[flags + 1] |= 1 << 3
        data[name] = 0xFF
        path.write_bytes(data)

    return change


def called_dot(path: Path, entry: int) -> None:
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(".", PNG)


def nameless(path: Path, entry: int) -> None:
    """Adds a member whose name of one byte is declared to be something else."""
    called_dot(path, entry)
    last = path.read_bytes().rfind(b"PK\x01\x02")
    overwrite(28, 0)(path, last)
    overwrite(30, 1)(path, last)


LAST_FILE = "images/" + LAST
NO_CRC = (LAST, "damaged in the zip (Bad CRC-32")

# Each row: what is wrong, how the zip is compressed, what is done to it with the place of the last
# image's entry in its central directory, and the words that the sentence must have.
BAD_ZIPS = [
    ("damaged as it is", zipfile.ZIP_STORED, spoil, NO_CRC),
    ("damaged deflate", zipfile.ZIP_DEFLATED, spoil, (LAST, "damaged in the zip (")),
    ("damaged bzip2", zipfile.ZIP_BZIP2, spoil, (LAST, "damaged in the zip (")),
    ("damaged LZMA", zipfile.ZIP_LZMA, spoil, (LAST, "damaged in the zip (Corrupt input data")),
    ("LZMA that is deflate", zipfile.ZIP_DEFLATED, overwrite(10, zipfile.ZIP_LZMA),
     (LAST, "damaged in the zip (LZMA properties")),
    ("an unknown compression", zipfile.ZIP_DEFLATED, overwrite(10, 9),
     (LAST, "compression method 9", "pack it with deflate")),
    ("a patch", zipfile.ZIP_DEFLATED, overwrite(8, 1 << 5),
     (LAST, "damaged in the zip (compressed patched data")),
    ("strong encryption", zipfile.ZIP_DEFLATED, overwrite(8, 1 << 6),
     (LAST, "damaged in the zip (strong encryption")),
    ("a password", zipfile.ZIP_DEFLATED, overwrite(8, 1), (LAST, "encrypted")),
    ("a wrong checksum", zipfile.ZIP_DEFLATED, overwrite(16, 0), NO_CRC),
    ("a name that is no text", zipfile.ZIP_STORED, not_text("directory"),
     ("not a readable zip file", "utf-8")),
    ("a name that is no text beside the content", zipfile.ZIP_STORED, not_text("member"),
     (LAST, "damaged in the zip ('utf-8'")),
    ("a member without a name", zipfile.ZIP_STORED, nameless,
     ("the member name '' is not that of a file", "pack it again")),
    ("a member called as its folder", zipfile.ZIP_STORED, called_dot,
     ("the member name '.' is not that of a file",)),
]  # fmt: skip


def bad_zip(folder: Path, kind: int, change: Callable[[Path, int], None]) -> Path:
    """A zip of a row of `BAD_ZIPS`."""
    path = write_zip(folder / "set.zip", files(), kind)
    data = path.read_bytes()
    change(path, data.find(LAST_FILE.encode(), data.find(b"PK\x01\x02")) - 46)
    return path


@pytest.mark.parametrize(
    ("kind", "change", "words"), [row[1:] for row in BAD_ZIPS], ids=[row[0] for row in BAD_ZIPS]
)
def test_bad_zips(
    tmp_path: Path, kind: int, change: Callable[[Path, int], None], words: tuple[str, ...]
):
    path = bad_zip(tmp_path, kind, change)
    with pytest.raises(DataError) as caught:
        check_set(ImageSet(path))
    check_sentence(str(caught.value), [str(path), *words])


@pytest.mark.parametrize(
    "kind", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]
)
def test_members_are_read_however_they_are_compressed(tmp_path: Path, kind: int):
    content = files()
    tree = open_tree(write_zip(tmp_path / "set.zip", content, kind))
    assert {name: tree.read(name) for name in tree.names} == content


@pytest.mark.parametrize("kind", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_no_more_is_unpacked_than_a_member_declares(tmp_path: Path, kind: int):
    path = write_zip(tmp_path / "set.zip", {"a.png": bytes(64_000_000)}, kind)
    patch_directory(path, {24: 1000})
    tree = open_tree(path)
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=r"a.png: damaged in the zip \(it declares 1000 bytes"):
            tree.read("a.png")
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # LZMA itself needs a dictionary of 8 MB.
    assert most < 16_000_000


def test_a_member_that_went_away_after_the_zip_was_opened(tmp_path: Path):
    path = write_zip(tmp_path / "set.zip", files())
    images = ImageSet(path)
    images.close()
    write_zip(path, {"other.png": PNG})
    with pytest.raises(DataError, match=rf"{LAST}: damaged in the zip"):
        images.image(5)


@pytest.mark.parametrize("name", ["../evil.png", "/evil.png", "a/../../evil.png", "C:/evil.png"])
def test_zip_names_that_leave_the_archive(tmp_path: Path, name: str):
    path = write_zip(tmp_path / "set.zip", files() | {name: PNG})
    with pytest.raises(DataError, match=r"set.zip: the member name .*evil.png' leaves the archive"):
        ImageSet(path)


def test_zip_with_two_members_of_one_name(tmp_path: Path):
    path = write_zip(tmp_path / "set.zip", files())
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr("meta.json", b"{}")
    with pytest.raises(DataError, match=r"two members are called 'meta.json'"):
        ImageSet(path)


def test_zip_bomb_of_one_member(tmp_path: Path):
    # 4 MB of zeros deflate about a thousandfold.
    content = files() | {"images/zeros.png": bytes(4_000_000)}
    path = write_zip(tmp_path / "set.zip", content, zipfile.ZIP_DEFLATED)
    with pytest.raises(
        DataError, match=r"a zip bomb \(member 'images/zeros.png' unpacks \d+ bytes"
    ):
        ImageSet(path)


def patch_directory(path: Path, changes: dict[int, int]) -> None:
    """Overwrite 4-byte fields, at these offsets, of the last entry of the central directory."""
    data = bytearray(path.read_bytes())
    entry = data.rfind(b"PK\x01\x02")
    for offset, value in changes.items():
        data[entry + offset : entry + offset + 4] = value.to_bytes(4, "little")
    path.write_bytes(data)


def test_zip_bomb_of_overlapping_members(tmp_path: Path):
    path = write_zip(tmp_path / "set.zip", files())
    # Offset 20 holds the stored size: one member claims more bytes than the whole file has.
    patch_directory(path, {20: 10_000_000})
    with pytest.raises(DataError, match=r"a zip bomb \(members of \d+ stored bytes overlap"):
        ImageSet(path)


def test_zip_bomb_of_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    # Members below 1 MB may have any ratio, so many of them need a limit on their sum.
    monkeypatch.setattr("nerfstudio_gan3d.data.archive.MEMBER_LIMIT", 5_000_000)
    content = {f"images/{i}.png": bytes(1_000_000) for i in range(10)}
    path = write_zip(tmp_path / "set.zip", content, zipfile.ZIP_DEFLATED)
    with pytest.raises(DataError, match=r"a zip bomb \(\d+ bytes unpack to 10000000"):
        ImageSet(path)


def test_a_member_that_declares_less_than_it_holds(tmp_path: Path):
    content = {"a.png": encode(image(0, 64)), "b.png": encode(image(1, 64))}
    path = write_zip(tmp_path / "set.zip", content)
    # Offset 24 holds the size: unpacking stops there.
    patch_directory(path, {24: 100})
    with pytest.raises(DataError, match=r"b.png: damaged in the zip"):
        check_set(ImageSet(path))


def test_damaged_and_encrypted_zips(tmp_path: Path):
    path = write_zip(tmp_path / "cut.zip", files())
    data = path.read_bytes()
    place = data.find(PNG) + len(PNG) // 2
    (tmp_path / "flip.zip").write_bytes(
        data[:place] + bytes([data[place] ^ 255]) + data[place + 1 :]
    )
    with pytest.raises(DataError, match=rf"{LAST}: damaged in the zip \(Bad CRC-32"):
        check_set(ImageSet(tmp_path / "flip.zip"))
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError, match=r"cut.zip: neither a folder nor a zip file"):
        ImageSet(path)
    locked = bytearray(data)
    locked[locked.rfind(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "locked.zip").write_bytes(locked)
    with pytest.raises(DataError, match=r"the member 'meta.json' is encrypted"):
        ImageSet(tmp_path / "locked.zip")
