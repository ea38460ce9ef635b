"""Images and tile visibility compared with transformers (no torch needed), and unreadable images."""

import json
import os
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageFile
from transformers.models.mllama.image_processing_pil_mllama import MllamaImageProcessorPil
from transformers.models.mllama.processing_mllama import (
    convert_sparse_cross_attention_mask_to_dense,
    get_cross_attention_token_mask,
)

from jaxtrace import CheckpointError, PromptError
from jaxtrace.checkpoints.images import ImageProcessor, check_image, tile_visibility
from jaxtrace.models.vision_config import VisionConfig

RATIOS = ((1, 1), (1, 2), (1, 3), (1, 4), (2, 1), (2, 2), (3, 1), (4, 1))
VISION = VisionConfig(
    embed_dim=8,
    num_layers=1,
    global_layers=1,
    num_heads=1,
    feed_forward=8,
    image_size=12,
    patch_size=4,
    channels=3,
    max_tiles=4,
    aspect_ratios=RATIOS,
    outputs=(0,),
)
HUB_CONFIG = {
    "do_convert_rgb": True,
    "do_normalize": True,
    "do_pad": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_processor_type": "MllamaImageProcessor",
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "max_image_tiles": 4,
    "resample": 2,
    "rescale_factor": 0.00392156862745098,
    "size": {"height": 12, "width": 12},
}
IMAGE = 9


def picture(rng, height, width, mode="RGB"):
    pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


def test_a_batch_of_prompts_with_several_images(rng):
    wide, tall, small, big = (picture(rng, *size) for size in ((10, 30), (40, 11), (3, 3), (50, 50)))
    images, tiles = ImageProcessor.of(VISION)([[wide], [tall, small], [], [big]])
    assert images.pixels.shape == (4, 2, 4, 3, 12, 12)
    assert images.pixels.dtype == np.float32
    ids = [[RATIOS.index(ratio) + 1 if ratio else 0 for ratio in row] for row in SHAPES]
    np.testing.assert_array_equal(images.aspect_ratio, ids)
    assert tiles == [[3], [4, 1], [], [4]]
    np.testing.assert_array_equal(images.tile_mask.sum(-1), [[3, 1], [4, 1], [1, 1], [4, 1]])
    assert not images.pixels[~images.tile_mask].any()
    expected = MllamaImageProcessorPil(size={"height": 12, "width": 12})([[tall, small]], return_tensors="np")
    np.testing.assert_array_equal(images.pixels[1], expected["pixel_values"][0])


SHAPES = [[(1, 3), None], [(4, 1), (1, 1)], [None, None], [(2, 2), None]]


def test_a_checkpoints_processor_overrides_the_default(rng, tmp_path):
    assert ImageProcessor.load(tmp_path, VISION) is None
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(HUB_CONFIG))
    processor = ImageProcessor.load(tmp_path, VISION)
    image = picture(rng, 12, 12)
    pixels = processor([[image]])[0].pixels[0, 0, 0]
    mean, std = (np.array(HUB_CONFIG[name])[:, None, None] for name in ("image_mean", "image_std"))
    np.testing.assert_allclose(pixels, (np.asarray(image).transpose(2, 0, 1) / 255 - mean) / std, atol=1e-5)


def test_a_processor_config_contains_the_image_processor(tmp_path):
    (tmp_path / "processor_config.json").write_text(json.dumps({"image_processor": HUB_CONFIG}))
    assert ImageProcessor.load(tmp_path, VISION).hf.image_mean[0] == pytest.approx(0.48145466)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("{", "the image processor cannot be read"),
        ("[]", "cannot be read (its config is no JSON object)"),
        *(
            (json.dumps(HUB_CONFIG | {name: junk}), f"cannot be read ({name}=")
            for name in ("image_mean", "image_std")
            for junk in (0.5, [0.5], [0.5, 0.5, "x"], [float("inf"), 0.5, 0.5], [0.5, 0.5, True], "abc")
        ),
        (json.dumps(HUB_CONFIG | {"image_std": [0.5, 0.0, 0.5]}), "which must be above 0"),
        (json.dumps(HUB_CONFIG | {"image_std": [0.5, -1.0, 0.5]}), "which must be above 0"),
        *(
            (json.dumps(HUB_CONFIG | {"rescale_factor": junk}), f"rescale_factor={junk!r}, which must be a finite")
            for junk in ("x", float("nan"), float("inf"), [1])
        ),
        (json.dumps(HUB_CONFIG | {"resample": 99}), "cannot be read (Unknown resampling filter (99)"),
        (json.dumps(HUB_CONFIG | {"image_processor_type": "CLIPImageProcessor"}), "which is not Mllama's"),
        (json.dumps(HUB_CONFIG | {"image_processor_type": []}), "image_processor_type=[], which is not Mllama's"),
        (json.dumps(HUB_CONFIG | {"do_pad": False}), "the image processor cannot be read"),
        (
            json.dumps(HUB_CONFIG | {"max_image_tiles": 2}),
            "makes 2 tiles of 12 pixels, and the model takes 4 of 12",
        ),
        (json.dumps(HUB_CONFIG | {"size": {"height": 8, "width": 8}}), "makes 4 tiles of 8 pixels"),
    ],
)
def test_an_invalid_processor_is_refused(tmp_path, text, part):
    (tmp_path / "preprocessor_config.json").write_text(text)
    with pytest.raises(CheckpointError) as error:
        ImageProcessor.load(tmp_path, VISION)
    message = str(error.value)
    assert part in message and str(tmp_path) in message and "\n" not in message


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK"])
def test_images_of_any_mode_are_read_as_rgb(rng, tmp_path, mode):
    image, path = picture(rng, 20, 12, mode), tmp_path / "image.tiff"
    image.save(path)
    processor = ImageProcessor.of(VISION)
    from_file, _ = processor([[path], [str(path)]])
    from_image, _ = processor([[image], [image.convert("RGB")]])
    np.testing.assert_array_equal(from_file.pixels, from_image.pixels)


def test_exif_orientation_is_applied(rng, tmp_path):
    image, path = picture(rng, 24, 12), tmp_path / "image.png"
    exif = Image.Exif()
    exif[274] = 6  # the camera was held sideways
    image.save(path, exif=exif)
    processor = ImageProcessor.of(VISION)
    upright = image.transpose(Image.Transpose.ROTATE_270)
    np.testing.assert_array_equal(processor([[path]])[0].pixels, processor([[upright]])[0].pixels)


def test_unreadable_image_files_are_refused(rng, tmp_path):
    whole, text, cut = (tmp_path / name for name in ("whole.png", "text.png", "cut.png"))
    picture(rng, 30, 30).save(whole)
    text.write_text("a text")
    cut.write_bytes(whole.read_bytes()[:200])
    check_image(whole)
    for path in (text, tmp_path / "absent.png", tmp_path):
        with pytest.raises(PromptError, match="is no image that can be read"):
            check_image(path)
    for path in (text, cut, tmp_path / "absent.png", tmp_path):
        with pytest.raises(PromptError, match="is no image that can be read") as error:
            ImageProcessor.of(VISION)([[whole], [whole, path]])
        assert str(path) in str(error.value) and "\n" not in str(error.value)


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width, height, *more):
    """Return a PNG whose header names a size, with more chunks, and few of its pixels."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0))
    ends = chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(more) + ends


def bomb(name, start):
    return chunk(name, start + zlib.compress(bytes(2**24)))


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("a.png", png(13_000, 13_000), "has 13,000 × 13,000 pixels; give one of at most 67,108,864 pixels"),
        ("a.png", png(8193, 8192), "has 8,193 × 8,192 pixels; give one of at most"),
        ("a.png", png(2**31 - 1, 2**31 - 1), "has too many pixels; give one of at most"),
        ("a.png", png(9, 9, bomb(b"zTXt", b"a\0\0")), "is no image that can be read (Decompressed data too large"),
        ("a.png", png(9, 9, bomb(b"iCCP", b"a\0\0")), "is no image that can be read (Decompressed data too large"),
        ("a.svg", b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>', "is no image that can be read"),
        ("a.eps", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", "is no image that can be read"),
        ("a.png", b"", "is no image that can be read"),
    ],
    ids=["large", "just too large", "header", "text", "profile", "svg", "eps", "empty"],
)
def test_an_image_is_refused_before_its_pixels_are_decoded(tmp_path, monkeypatch, file, content, message):
    path = tmp_path / file
    path.write_bytes(content)
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda _: pytest.fail("decoded"))
    for read in (check_image, lambda source: ImageProcessor.of(VISION)([[source]])):
        with pytest.raises(PromptError) as error:
            read(path)
        assert str(error.value).startswith(f"{path}: {message}") and "\n" not in str(error.value)


def test_the_largest_image_is_accepted(tmp_path):
    (tmp_path / "a.png").write_bytes(png(8192, 8192))
    check_image(tmp_path / "a.png")


def test_a_pipe_and_a_large_file_are_refused_unread(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    with (tmp_path / "large.png").open("wb") as file:
        file.truncate(2**29 + 1)
    for name, problem in (
        ("pipe.png", "it is no regular file"),
        ("large.png", "has 536,870,913 bytes; give one of at"),
    ):
        with pytest.raises(PromptError, match=problem):
            check_image(tmp_path / name)


def test_the_first_frame_of_an_animation_is_read(rng, tmp_path):
    first, second = picture(rng, 12, 12), picture(rng, 12, 12)
    first.save(tmp_path / "a.tiff", save_all=True, append_images=[second])
    processor = ImageProcessor.of(VISION)
    np.testing.assert_array_equal(processor([[tmp_path / "a.tiff"]])[0].pixels, processor([[first]])[0].pixels)


def test_a_lazy_pillow_image_that_is_cut_is_refused(rng, tmp_path):
    picture(rng, 30, 30).save(tmp_path / "a.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "a.png").read_bytes()[:600])
    with Image.open(tmp_path / "cut.png") as lazy, pytest.raises(PromptError, match="an image: is no image that can"):
        ImageProcessor.of(VISION)([[lazy]])


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (np.zeros((4, 4, 3), np.uint8), "an image is a file or Pillow's Image, not ndarray; give one of these"),
        (7, "an image is a file or Pillow's Image, not int; give one of these"),
        (b"\x89PNG", "an image is a file or Pillow's Image, not bytes; give one of these"),
        (None, "an image is a file or Pillow's Image, not NoneType; give one of these"),
        (Image.new("RGB", (0, 0)), "an image of 0 × 0 pixels is empty; give another"),
        (Image.new("RGB", (3, 0)), "an image of 3 × 0 pixels is empty; give another"),
    ],
    ids=["array", "int", "bytes", "none", "empty", "no height"],
)
@pytest.mark.parametrize("read", [check_image, lambda source: ImageProcessor.of(VISION)([[source]])])
def test_a_source_that_is_no_image_is_refused(source, message, read):
    with pytest.raises(PromptError) as error:
        read(source)
    assert str(error.value) == message


def test_a_checked_image_can_still_be_read(rng):
    image = picture(rng, 12, 12)
    check_image(image)
    assert ImageProcessor.of(VISION)([[image]])[0].pixels.any()


@given(st.data())
def test_visibility_equals_that_of_transformers(data):
    tokens = data.draw(st.lists(st.sampled_from([1, 2, IMAGE]), min_size=1, max_size=12))
    count = tokens.count(IMAGE)
    tiles = data.draw(st.lists(st.integers(1, 4), min_size=count, max_size=count))
    visible = tile_visibility(tokens, tiles, count + 1, 4, IMAGE).reshape(len(tokens), count + 1, 4)
    assert visible.dtype == bool
    assert not visible[:, count].any()
    sparse = get_cross_attention_token_mask(tokens, IMAGE)
    expected = convert_sparse_cross_attention_mask_to_dense([sparse], [tiles], 4, len(tokens))[0]
    np.testing.assert_array_equal(visible[:, :count], expected)


def test_visibility_of_three_images():
    visible = tile_visibility([1, IMAGE, 2, IMAGE, IMAGE, 3], [2, 1, 3], 3, 3, IMAGE)
    a, b, c = {0, 1}, {3}, {6, 7, 8}
    assert [set(np.flatnonzero(seen)) for seen in visible] == [set(), a, a, b, b | c, b | c]
