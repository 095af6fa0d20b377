"""Help and errors appear at once: no large package is imported before arguments and configs are checked."""

import subprocess
import sys

import pytest
from support import PROJECT

HEAVY = ("torch", "torchvision", "timm", "numpy", "scipy", "sklearn", "matplotlib", "pytorch_grad_cam", "fvcore")


@pytest.mark.parametrize(
    ("command", "exit_code"),
    [
        ("train.py --help", 0),
        ("train.py configs/quickstart.yaml train.learning_rate=1", 2),
        ("train.py configs/missing.yaml", 2),
        ("evaluate.py --help", 0),
        ("evaluate.py outputs/missing", 2),
        ("evaluate.py outputs/missing --from-predictions --corrupt", 2),
        ("gradcam.py --help", 0),
        ("gradcam.py outputs/missing --random 1", 2),
        ("gradcam.py outputs/missing --random 1 --method grad-cam", 2),
    ],
)
def test_help_and_errors_in_arguments_come_before_torch_is_imported(command, exit_code):
    script, *arguments = command.split()
    code = (
        f"import atexit, runpy, sys; sys.argv = {[script, *arguments]}; "
        f"atexit.register(lambda: print('heavy:', sorted(set({HEAVY}) & set(sys.modules)))); "
        f"runpy.run_path({script!r}, run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True)
    assert done.returncode == exit_code, done.stderr
    assert done.stdout.splitlines()[-1] == "heavy: []"
    assert "Traceback" not in done.stderr
    assert exit_code or "$XDG_CACHE_HOME/vit-vs-swin, or ~/.cache/vit-vs-swin" in " ".join(done.stdout.split())
    assert (done.stderr.count("\n") == 1 and done.stderr.startswith("error: ")) if exit_code else not done.stderr
