"""What an image folder and `predict` read of odd files."""

import base64
import json
import warnings

import chromium
import numpy as np
import pytest
from odd_images import odd_images
from PIL import Image, ImageOps

from ablate.data import decoding, image_files, image_folder
from ablate.data.image_size import Fit
from ablate.engine.predict import predict
from ablate.errors import BadInput
from ablate.models import checkpoints, loading
from ablate.quantization.packing import pack

ODD = odd_images()
READ = [odd for odd in ODD if not isinstance(odd.shown, str)]
REFUSED = [odd for odd in ODD if isinstance(odd.shown, str)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """All of them, in one folder."""
    made = tmp_path_factory.mktemp("odd")
    for odd in ODD:
        (made / odd.name).write_bytes(odd.data)
    return made


@pytest.fixture(scope="module")
def packed(tiny_vit, tmp_path_factory):
    model = checkpoints.load(str(tiny_vit), ["a", "b"])
    pack(model, made := tmp_path_factory.mktemp("packed"), preprocess=loading.preprocess(str(tiny_vit)))
    return made


@pytest.mark.parametrize("odd", READ, ids=lambda odd: ascii(odd.name))
def test_what_a_file_shows(folder, odd):
    high, wide, _ = odd.shown.shape
    with warnings.catch_warnings(action="ignore"):  # of Pillow
        assert decoding.size(folder / odd.name) == (wide, high)
    found = image_files.fitted(folder / odd.name, Fit((wide, high)))
    assert not isinstance(found, str), found
    worst = np.abs(found.astype(int) - odd.shown).max()
    assert worst <= odd.near


def test_a_size_alone_is_what_an_image_covers(tmp_path):
    Image.new("RGB", (20, 10), "red").save(tmp_path / "a.png")
    assert image_files.fitted(tmp_path / "a.png", (4, 6)).shape == (6, 4, 3)


@pytest.mark.parametrize("odd", REFUSED, ids=lambda odd: ascii(odd.name))
def test_what_is_refused(folder, odd):
    found = image_files.fitted(folder / odd.name, Fit((8, 6)))
    assert isinstance(found, str) and odd.shown in found and "\n" not in found


def test_what_a_dataset_holds_of_them(tmp_path):
    for split in ("train", "val", "test"):
        for name in "ab":
            (tmp_path / split / name).mkdir(parents=True)
            Image.new("RGB", (8, 6), (len(split), ord(name), 0)).save(tmp_path / split / name / "one.png")
    for odd in READ:
        (tmp_path / "train" / "a" / odd.name).write_bytes(odd.data)
    found = image_folder.contents(tmp_path, 24)
    images = dict(
        zip(sorted([*(odd.name for odd in READ), "one.png"]), found.arrays["train"][0], strict=False)
    )
    for odd in READ:
        expected = np.asarray(ImageOps.fit(Image.fromarray(odd.shown), (24, 24), Image.Resampling.BICUBIC))
        assert np.abs(images[odd.name].astype(int) - expected).max() <= odd.near + 1, odd.name
    assert [
        note
        for note in found.notes
        if "turned as EXIF says" in note and f" of {len(READ) + 6} images" in note
    ]
    for odd in REFUSED:
        (tmp_path / "val" / "b" / odd.name).write_bytes(odd.data)
    with pytest.raises(BadInput, match=rf"but \d+ of {len(ODD) + 6} can't: .* mend or remove them") as error:
        image_folder.read(tmp_path, 24)
    assert "\n" not in str(error.value)


def test_what_predict_reads_of_them(folder, packed, tmp_path):
    for i, odd in enumerate(READ):
        Image.fromarray(odd.shown).save(tmp_path / f"{i}.png")
    found = predict(packed, [folder / odd.name for odd in READ], exact=True)
    plain = predict(packed, [tmp_path / f"{i}.png" for i in range(len(READ))], exact=True)
    for odd, one, other in zip(READ, found, plain, strict=True):
        assert one[1] == pytest.approx(other[1], abs=1e-3 * (odd.near + 1)), odd.name
    for odd in REFUSED:
        with pytest.raises(BadInput) as error:
            predict(packed, [folder / odd.name])
        assert odd.shown in str(error.value) and "\n" not in str(error.value)


SHOW = """<canvas></canvas><script>
async function shown(address) {
  const image = new Image()
  image.src = address
  await image.decode()
  const canvas = document.querySelector('canvas')
  Object.assign(canvas, {width: image.naturalWidth, height: image.naturalHeight})
  const paper = canvas.getContext('2d', {willReadFrequently: true})
  paper.fillStyle = 'white'
  paper.fillRect(0, 0, canvas.width, canvas.height)
  paper.drawImage(image, 0, 0)
  return [canvas.width, canvas.height, ...paper.getImageData(0, 0, canvas.width, canvas.height).data]
}
</script>"""


@pytest.mark.slow
@pytest.mark.skipif(chromium.NAME is None, reason="needs Chromium")
def test_a_browser_shows_the_same(folder, tmp_path):
    (tmp_path / "page.html").write_text(SHOW)
    differ = []
    with chromium.browser(tmp_path) as address, chromium.Page(address, tmp_path / "page.html") as page:
        for odd in READ:
            if not odd.browser:
                continue
            data = base64.b64encode(odd.data).decode()
            wide, high, *values = page(f"shown({json.dumps('data:image/x;base64,' + data)})")
            shown = np.array(values).reshape(high, wide, 4)[:, :, :3]  # (H, W, RGB)
            if shown.shape != odd.shown.shape or np.abs(shown - odd.shown).max() > odd.near + 2:
                differ.append((odd.name, shown[0, :2].tolist(), odd.shown[0, :2].tolist()))
    assert differ == []
