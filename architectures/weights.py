"""Pretrained weights: timm's description of a model, finding the file, and loading it with a list of what does not fit."""

import difflib
import hashlib
import json
import logging
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import timm
import torch
from timm.models import PretrainedCfg
from torch import Tensor, nn

import architectures  # noqa: F401  (registers the project's own models with timm)
from common.network import require_network
from common.shapes import StoredInput

logger = logging.getLogger(__name__)

SOURCES = ("hf-hub:", "local-dir:")
"""Prefixes of model names that timm does not register: a repository of the Hugging Face hub, or a folder like one."""


def pretrained_cfg(name: str):
    """timm's description of a model and its default weights, or timm's defaults for a model registered without one.

    For ``hf-hub:OWNER/MODEL`` and ``local-dir:FOLDER`` it is read from their config.json, with ``architecture``.
    Raises ValueError, with similar names, for an unknown model.
    """
    if name.startswith(SOURCES):
        return _stated_cfg(name)
    if not timm.is_model(name):
        nearest = _nearest_models(name.split(".")[0])
        hint = f"; nearest: {', '.join(nearest)}" if nearest else ""
        raise ValueError(f"model.name = {name!r} is neither a timm model nor one of the project's own{hint}")
    try:
        return timm.get_pretrained_cfg(name) or PretrainedCfg()
    except RuntimeError:
        known = timm.list_pretrained(f"{name.split('.')[0]}.*")
        raise ValueError(f"model.name = {name!r}: timm has no weights of that tag; known: {', '.join(known)}") from None


def timm_name(name: str) -> str:
    """The name for ``timm.create_model``; for a hub's repository the local folder with its config.json."""
    return f"local-dir:{_stated(name)[0]}" if name.startswith(SOURCES) else name


def _stated(name: str) -> tuple[Path, dict]:
    """The folder with the config.json of a model from a hub or a folder, and its content. Raises ValueError if unusable."""
    source, _, place = name.partition(":")
    folder = Path(place) if source == "local-dir" else _fetch(place, "config.json", name).parent
    try:
        stated = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        known = isinstance(stated["architecture"], str) and isinstance(stated["pretrained_cfg"], dict)
    except (OSError, ValueError, KeyError, TypeError):
        known = False
    if not known:
        raise ValueError(f"model.name = {name}: {folder} has no config.json as timm writes it")
    if not timm.is_model(stated["architecture"]):
        raise ValueError(f"model.name = {name}: neither timm nor the project has its {stated['architecture']}")
    return folder, stated


def _stated_cfg(name: str) -> PretrainedCfg:
    stated = _stated(name)[1]
    known = {field.name for field in fields(PretrainedCfg)}
    cfg = PretrainedCfg(**{key: value for key, value in stated["pretrained_cfg"].items() if key in known})
    hub = name.removeprefix("hf-hub:") if name.startswith("hf-hub:") else None
    own = {"architecture": stated["architecture"], "num_classes": stated.get("num_classes", cfg.num_classes)}
    return replace(cfg, hf_hub_id=hub, hf_hub_filename=None, **own)


def _fetch(repository: str, filename: str, name: str) -> Path:
    """A file of a repository on the Hugging Face hub (OWNER/MODEL, or with @REVISION), from the cache or the network."""
    from huggingface_hub import hf_hub_download, try_to_load_from_cache

    repository, _, revision = repository.partition("@")
    version = {"revision": revision} if revision else {}
    path = try_to_load_from_cache(repository, filename, **version)
    if not isinstance(path, str):
        is_config = filename == "config.json"
        keep = (
            "set model.name to local-dir:FOLDER, the folder that holds it and the weights"
            if is_config
            else "set model.pretrained (for gradcam.py NAME: --pretrained) to that file, to the folder that holds it and its "
            "config.json (local-dir:FOLDER)"
        )
        scratch = "" if is_config else "; or train from scratch with model.pretrained=false"
        require_network(
            os.environ.get("HF_ENDPOINT", "https://huggingface.co"),
            purpose=f"Downloading the {'config' if is_config else 'weights'} of {name}",
            remedy=f"Fetch {filename} of {repository} elsewhere and {keep}, or copy it into the Hugging Face cache (HF_HOME) "
            f"and set HF_HUB_OFFLINE=1{scratch}.",
        )
        try:
            path = hf_hub_download(repository, filename, **version)
        except Exception as error:  # huggingface_hub raises errors of several libraries
            raise ValueError(f"{repository}/{filename} could not be downloaded: {error}") from None
    return Path(path)


def _nearest_models(name: str) -> list[str]:
    """At most three names whose whole or beginning is similar to this one (vit_tinny: vit_tiny_patch16_224)."""

    def similarity(known: str) -> float:
        return max(difflib.SequenceMatcher(None, part, name).ratio() for part in (known, known[: len(name)]))

    scores = {known: similarity(known) for known in timm.list_models()}
    ranked = sorted(sorted(scores, key=len), key=scores.get, reverse=True)  # among equals the shortest first
    return [known for known in ranked if scores[known] >= 0.5][:3]


def corpus_of(tag: str) -> str:
    """timm's weight tag -> the names of the training data, with the tag, since two tags are different weights."""
    names = {"in22k": "ImageNet-21k", "in21k": "ImageNet-21k", "in12k": "ImageNet-12k", "in1k": "ImageNet-1k"}
    found = [names[part] for part in tag.split("_") if part in names]
    return f"{' then '.join(found)} ({tag})" if found else tag


@dataclass(frozen=True)
class Weights:
    """A file of pretrained weights, and where it comes from."""

    path: Path
    corpus: str
    license: str | None = None
    normalization: dict | None = None  # mean, std, interpolation, where a timm folder states them

    def describe(self) -> dict:
        """Plain values, for ``environment.json``."""
        digest = hashlib.sha256(self.path.read_bytes()).hexdigest()
        return {"file": str(self.path), "corpus": self.corpus, "license": self.license, "sha256": digest}


def find_weights(name: str, pretrained: bool | str) -> Weights:
    """Find the weights of ``model.pretrained``: a file, a folder as timm saves it, or timm's default (downloaded if needed).

    Raises ValueError if there are none, or if the folder holds another model.
    """
    if isinstance(pretrained, str):
        path = Path(pretrained.removeprefix("local-dir:"))
        if path.is_dir():
            return _find_in_folder(name, path)
        if not path.is_file():
            raise ValueError(
                f"model.pretrained = {path}: no such file or folder; give a .pth or .safetensors file, a folder that timm "
                "saved (local-dir:FOLDER), true or false"
            )
        return Weights(path, str(path))
    weights = pretrained_cfg(name)
    if name.startswith("local-dir:"):
        return _find_in_folder(name, Path(name.removeprefix("local-dir:")))
    if not weights.hf_hub_id:
        raise ValueError(f"timm has no pretrained weights for {name}; set model.pretrained to false or to a file")
    path = _fetch(weights.hf_hub_id, weights.hf_hub_filename or "model.safetensors", name)
    return Weights(path, corpus_of(weights.tag) if weights.tag else name, weights.license)


def _find_in_folder(name: str, folder: Path) -> Weights:
    """The weights in a folder with a config.json, as timm's ``save_for_hf`` and its hub repositories have them."""
    found = [folder / file for file in ("model.safetensors", "pytorch_model.bin") if (folder / file).is_file()]
    try:
        stated = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        architecture, cfg = stated["architecture"], stated["pretrained_cfg"]
        normalization = {key: cfg[key] for key in ("mean", "std", "interpolation")}
    except (OSError, ValueError, KeyError, TypeError):
        found = []
    if not found:
        raise ValueError(
            f"model.pretrained = {folder}: the folder needs a config.json as timm writes it, and model.safetensors"
        )
    if architecture != (pretrained_cfg(name).architecture or name.split(".")[0]):
        raise ValueError(f"model.pretrained = {folder}: its weights are of {architecture}, not of {name}")
    tag = cfg.get("tag") or ""
    return Weights(found[0], corpus_of(tag) if tag else str(folder), cfg.get("license"), normalization)


def misfits(state: dict[str, Tensor], wanted: dict[str, Tensor]) -> list[str]:
    """Reasons why ``state`` cannot be loaded into a model with the state ``wanted``, one phrase per key; empty if it can."""
    problems = [
        f"{key} is {list(state[key].shape)}, the model has {list(wanted[key].shape)}"
        for key in wanted
        if key in state and state[key].shape != wanted[key].shape
    ]
    problems += [f"{key} is missing" for key in wanted if key not in state]
    return problems + [f"{key} is not part of the model" for key in state if key not in wanted]


def load_weights(
    model: nn.Module, path: Path, *, with_head: bool = False, class_names: Sequence[str] | None = None
) -> tuple[dict | None, str]:
    """Load all weights, but a head for other classes only with ``with_head``.

    A head is for other classes if its size differs, or if the checkpoint names classes other than ``class_names``.
    Embeddings and position tables of another image size are interpolated by the architecture's own rule.

    Returns the ``input_spec`` in a run's own checkpoint (None for other files), and whether the head was "loaded" or is
    "new". Raises ValueError, listing the keys, if anything but the head is missing, superfluous or of another shape.
    """
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state, spec, known = load_file(path), None, None
        else:
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
            spec, known = checkpoint.get("input_spec"), checkpoint.get("class_names")
            state = timm.models.clean_state_dict(checkpoint.get("model", checkpoint.get("state_dict", checkpoint)))
        spec = None if spec is None else StoredInput.model_validate(spec).model_dump()
        known = known if isinstance(known, list) else None
        if not state or not all(isinstance(value, Tensor) for value in state.values()):
            raise TypeError("not a dictionary of tensors")
        adapt = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
        if adapt:
            state = adapt(state, model)
    except Exception as error:  # a foreign or truncated file fails in many ways
        raise ValueError(
            f"{path} is not a file of weights for this model ({type(error).__name__}); give a .pth or .safetensors file"
        ) from None
    wanted = model.state_dict()
    heads = getattr(model, "pretrained_cfg", {}).get("classifier") or "head"  # as in architectures.registry
    head_keys = {
        f"{head}.{part}" for head in ([heads] if isinstance(heads, str) else heads) for part in ("weight", "bias")
    }
    others = known is not None and class_names is not None and list(known) != list(class_names)
    fits = all(key in state and state[key].shape == wanted[key].shape for key in head_keys & set(wanted))
    is_new = not with_head and (others or not fits)
    if others and fits and not with_head:
        names = ", ".join(map(str, known[:4]))
        logger.warning(
            "%s: its head is of other classes (%s, ...) than the data; a new one takes its place", path, names
        )
    if is_new:
        state = {key: value for key, value in state.items() if key not in head_keys}
        wanted = {key: value for key, value in wanted.items() if key not in head_keys}
    problems = misfits(state, wanted)
    if problems:
        more = f" and {len(problems) - 6} more" if len(problems) > 6 else ""
        raise ValueError(f"{path} does not fit {type(model).__name__}: {'; '.join(problems[:6])}{more}")
    model.load_state_dict(state, strict=False)  # the check above is strict, apart from the head
    return spec, "new" if is_new else "loaded"
