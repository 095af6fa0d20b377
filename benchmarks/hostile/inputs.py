"""Pictures, names and arguments from elsewhere."""

import itertools
import os
import shutil
from collections.abc import Iterator

from PIL import Image, PngImagePlugin

from benchmarks.hostile.world import Case, World, make_images


def pictures(world: World) -> Iterator[Case]:
    """Image files from elsewhere, explained, and trained on."""
    folder = world.folder / "pictures"
    folder.mkdir()
    good = Image.effect_noise((40, 30), 50).convert("RGB")
    for mode in ("1", "L", "P", "RGBA", "CMYK", "I;16", "LA"):
        image = good.convert("L").convert(mode) if mode == "I;16" else good.convert(mode)
        image.save(folder / f"mode {mode.replace(';', '')}.{'tif' if mode in ('CMYK', 'I;16') else 'png'}")
    good.convert("F").save(folder / "float.tif")
    good.save(folder / "frames.gif", save_all=True, append_images=[good] * 3)
    text = PngImagePlugin.PngInfo()
    text.add_text("comment", "x" * 70_000_000, zip=True)
    good.save(folder / "text chunk.png", pnginfo=text)
    Image.new("L", (20000, 20000)).save(folder / "20000.png")
    Image.new("RGB", (1, 1)).save(folder / "one.png")
    Image.new("RGB", (5000, 1)).save(folder / "line.png")
    good.save(folder / "whole.png")
    whole = (folder / "whole.png").read_bytes()
    for name, content in {
        "cut": whole[:500],
        "empty": b"",
        "text": b"text",
        "svg": b"<svg/>",
        "noise": os.urandom(500),
    }.items():
        (folder / f"{name}.png").write_bytes(content)
    (folder / "folder.png").mkdir()
    os.mkfifo(folder / "fifo.png")
    (folder / "loop.png").symlink_to("loop.png")
    for name in (
        "a $x^{_} b",
        "per%cent & hash#",
        "new\nline",
        "<b>bold",
        "quote\"'`",
        "ä 中 🐈",
        "-dash",
        "a" * 240,
        "=1+1",
        "\\x{",
    ):
        good.save(folder / f"{name}.png")
    for path in sorted(folder.iterdir()):
        words = (str(world.finished), "--method", "rollout", "--image", str(path))
        yield Case("pictures", f"explain {path.name[:30]!r}", "gradcam", words)
        root = world.folder / f"photos{len(path.name)}-{abs(hash(path.name)) % 10**8}"

        def prepare(path=path, root=root):
            shutil.copytree(world.images, root)
            if path.name == "fifo.png":
                os.mkfifo(root / "cat" / path.name)
            elif path.is_dir():
                (root / "cat" / path.name).mkdir()
            else:
                shutil.copy(path, root / "cat" / path.name, follow_symlinks=False)

        yield world.training("pictures", f"train with {path.name[:30]!r}", f"data.root={root}", prepare=prepare)


def names(world: World) -> Iterator[Case]:
    """Classes of any name, from training to the report."""
    place = world.folder / "named"
    for i, name in enumerate(
        (
            "a $x^{_}$ b",
            "100 % & #1",
            "<script>x",
            "| pipe",
            "=1+1",
            "_under_",
            "ä 中 🐈",
            "-dash",
            "new\nline",
            "\\alpha{",
        )
    ):
        root = world.folder / f"names{i}"

        def prepare(root=root, name=name):
            if not root.exists():
                make_images(root, classes=(name, "dog", f"{name}2"))

        own = (f"output_root={place}", f"data.root={root}")
        first = (str(world.config), *own, f"name=run{i}")
        second = (str(world.config), *own, f"name=other{i}", "seed=1")

        def train_both(prepare=prepare, root=root, i=i, arguments=(first, second)):
            prepare()
            for name, words in zip((f"run{i}", f"other{i}"), arguments):
                if not (place / name).exists():
                    world.run(Case("", "", "train", words))

        yield Case("names", f"train {name!r}", "train", first, refused=False, prepare=prepare)
        both = (str(place / f"run{i}"), str(place / f"other{i}"))
        yield Case("names", f"compare {name!r}", "evaluate", (*both, "--corrupt"), refused=False, prepare=train_both)
        words = (*both, "--per-class", "1", "--target", name)
        yield Case("names", f"explain {name!r}", "gradcam", words, prepare=train_both)
    for name in (
        "comparisons",
        "pretrained/x",
        "a" * 201,
        "/absolute",
        "..",
        "a/../b",
        "a b",
        "a\nb",
        "finished/inner",
        "",
        ".x",
        "a//b",
    ):
        words = (str(world.config), f"output_root={world.outputs}", f"name={name}")
        yield Case("names", f"run {name[:20]!r}", "train", words, refused=None if name in ("", "a\nb") else True)


def arguments(world: World) -> Iterator[Case]:
    """Options of the scripts with values of every kind."""
    run, kinds = str(world.finished), ("-1", "0", "99999999999", "x", "", "1.5", "nan")
    for option, value in itertools.product(("--index", "--random", "--per-class", "--analyze", "--similarity"), kinds):
        yield Case("arguments", f"gradcam {option} {value!r}", "gradcam", (run, option, value))
    for option, value in itertools.product(
        ("--target", "--layer", "--method", "--channels", "--seed", "--split", "--device", "--checkpoint"), kinds
    ):
        yield Case("arguments", f"gradcam {option} {value!r}", "gradcam", (run, "--random", "1", option, value))
    for option, value in itertools.product(("--split", "--tta", "--checkpoint", "--device", "--output"), kinds):
        yield Case("arguments", f"evaluate {option} {value!r}", "evaluate", (run, option, value))
    for path in (
        "",
        ".",
        "/",
        "/dev/null",
        "/proc/self",
        "x" * 300,
        "x" * 5000,
        "no/such",
        "\x07",
        str(world.images),
        str(world.config),
    ):
        for script in ("evaluate", "gradcam"):
            more = ("--random", "1") if script == "gradcam" else ()
            yield Case("arguments", f"{script} {path[:20]!r}", script, (path, *more), refused=True)
        yield Case(
            "arguments", f"train {path[:20]!r}", "train", (path,), refused=None if path == str(world.config) else True
        )
    for word in ("=", "a=", "=1", "train=1", "train.lr.x=1", "data.root", "seed=[", "train.lr=1e", "name=a=b"):
        yield world.training("arguments", f"override {word}", word)
    (world.folder / "file").write_text("in the way")
    for place in ("/proc/x", "/dev/null/x", str(world.folder / "file"), "x" * 300):
        yield Case(
            "arguments", f"output {place[:20]}", "train", (str(world.config), f"output_root={place}"), refused=True
        )
        yield Case(
            "arguments",
            f"comparison {place[:20]}",
            "evaluate",
            (run, str(world.outputs / "second"), "--output", place),
            refused=True,
        )
