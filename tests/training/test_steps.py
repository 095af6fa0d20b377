"""What makes a step cheaper changes nothing in it."""

import contextlib

import pytest
import torch
from support import TINY_VIT, make_config, write_config

import train
from common import devices
from common.runs import Run
from models import checkpoint_activations, create_model
from training import optimization, trainer

SWIN = {"patch_size": 2, "window_size": 4, "embed_dim": 24, "depths": [2, 2], "num_heads": [2, 4]}
MODELS = {
    "vit_tiny_patch16_224": {"patch_size": 8, "depth": 2, "drop_path_rate": 0.3},
    "shallow_vit": {"depth": 2},
    "swin_32px": SWIN,
    "swin_tiny_patch4_window7_224": SWIN,
}


@pytest.mark.parametrize("name", MODELS)
def test_checkpointed_activations_give_the_same_gradients(name):
    config = make_config(data={"image_size": 32}, model={"name": name, "kwargs": MODELS[name]})
    model, images, gradients = create_model(config, num_classes=5).train(), torch.randn(4, 3, 32, 32), []
    state = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    kept = []
    for checkpointed in (False, True):
        if checkpointed:
            checkpoint_activations(model)
        model.load_state_dict(state)
        torch.manual_seed(0)  # of drop path
        kept.append(0)

        def keep(tensor):
            kept[-1] += tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
            loss = model(images).square().sum()
        model.zero_grad()
        loss.backward()
        gradients.append([parameter.grad.clone() for parameter in model.parameters()])
    torch.testing.assert_close(*gradients)
    assert kept[1] < 0.7 * kept[0]


def test_a_model_that_cannot_be_checkpointed_is_named():
    with pytest.raises(ValueError, match="grad_checkpointing: Linear has none"):
        checkpoint_activations(torch.nn.Linear(1, 1))


def test_checkpointing_in_bf16_trains(tmp_path):
    """What is computed again has to be so by the kernel of the first time."""
    path = write_config(tmp_path, TINY_VIT)
    train.main(
        [str(path), f"output_root={tmp_path}", "train.epochs=1", "train.amp=bf16", "train.grad_checkpointing=true"]
    )
    assert Run.open(tmp_path / "tiny").finished


@pytest.mark.parametrize(("precision", "deterministic"), [("bf16", False), ("fp32", True)])
def test_fast_kernels_are_chosen_where_no_result_changes(precision, deterministic):
    flags = (torch.backends.cuda.matmul, "allow_tf32"), (torch.backends.cudnn, "benchmark")
    before = [getattr(*flag) for flag in flags]
    try:
        devices.choose_kernels(precision, deterministic=deterministic)
        assert [getattr(*flag) for flag in flags] == [precision == "bf16", not deterministic]
    finally:
        for (module, name), value in zip(flags, before):
            setattr(module, name, value)


def test_training_and_validation_are_compiled(tmp_path, monkeypatch):
    compiled = []
    monkeypatch.setattr(torch, "compile", lambda model: compiled.append(model) or model)
    path = write_config(tmp_path, TINY_VIT)
    train.main([str(path), f"output_root={tmp_path}", "train.epochs=1", "train.compile=true", "train.model_ema=true"])
    assert len(compiled) == 2 and compiled[0] is not compiled[1]  # the model, and its average


def test_ranks_exchange_gradients_once_per_step(tmp_path, monkeypatch):
    parts, step = [], trainer.Trainer.train_step

    @contextlib.contextmanager
    def later():
        parts.append("later")
        yield

    def spy(self, *arguments):
        self.exchange_later = later
        result = step(self, *arguments)
        parts.append("step")
        return result

    monkeypatch.setattr(trainer.Trainer, "train_step", spy)
    path = write_config(tmp_path, TINY_VIT)
    train.main([str(path), f"output_root={tmp_path}", "train.epochs=1", "train.grad_accum_steps=4"])
    assert parts[:8] == ["later"] * 3 + ["step"] + ["later"] * 3 + ["step"]


@pytest.mark.parametrize("name", optimization.FUSED)
def test_fused_optimizers_take_the_same_steps(name, monkeypatch):
    config = make_config(train={"opt": name, "lr": 1e-2})
    weights = []
    for fused in (optimization.FUSED, ()):
        monkeypatch.setattr(optimization, "FUSED", fused)
        torch.manual_seed(0)
        model = create_model(config, num_classes=5)
        optimizer = optimization.create_optimizer(model, config)
        assert bool(optimizer.param_groups[0].get("fused")) == bool(fused)
        for _ in range(
            3
        ):  # the same gradients for both: those of a bias of keys are rounding noise, which Adam enlarges
            for parameter in model.parameters():
                parameter.grad = torch.randn_like(parameter)
            optimizer.step()
        weights.append(list(model.parameters()))
    torch.testing.assert_close(*weights)
