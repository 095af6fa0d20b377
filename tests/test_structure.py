"""The import graph: scripts -> {data, models, runs, analysis}; models -> architectures; nothing the other way round."""

import ast
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[1]
FOUNDATION = {"config", "console", "devices", "distributed", "network", "randomness"}
STAGES = FOUNDATION | {"data", "sources", "models", "runs", "analysis", "checkpoints", "inference", "optimization"}
STAGES |= {
    "comparison",
    "comparison_report",
    "corruptions",
    "explanation",
    "explanation_pictures",
    "explanation_quality",
}
ALLOWED = {
    "config": set(),
    "devices": set(),
    "network": set(),
    "console": set(),
    "distributed": set(),
    "randomness": set(),
    "augmentation": {"config"},
    "sources": {"augmentation", "config", "network"},
    "data": {"augmentation", "config", "sources"},
    "weights": {"architectures", "network"},
    "models": {"config", "weights"},
    "runs": {"config"},
    "corruptions": {"analysis"},
    "comparison": {"analysis", "config", "runs"},
    "comparison_report": {"analysis", "comparison", "config", "console", "corruptions", "data", "runs"},
    "inference": {"analysis", "data", "devices", "distributed", "models"},
    "explanation": {"analysis", "data", "devices", "inference", "models", "runs", "sources"},
    "explanation_pictures": {"analysis", "explanation"},
    "explanation_quality": {"analysis", "console", "data", "devices", "explanation", "inference", "models", "runs"},
    "optimization": {"config"},
    "checkpoints": {"analysis", "data", "distributed", "models", "optimization", "randomness", "runs"},
    "architectures": {"architectures"},
    "analysis": {"analysis"},
    "train": STAGES,
    "evaluate": STAGES,
    "gradcam": STAGES,
}
MODULES = sorted([*PROJECT.glob("*.py"), *PROJECT.glob("analysis/*.py"), *PROJECT.glob("architectures/*.py")])


def imported(path):
    """First parts of the names of the project's modules that a file imports."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module.split(".")[0])
    return names & set(ALLOWED)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(PROJECT).as_posix())
def test_imports_point_one_way(path):
    unit = path.stem if path.parent == PROJECT else path.parent.name
    assert imported(path) <= ALLOWED[unit]


@pytest.mark.parametrize("name", ["style", "figures", "cam_figures", "comparison_figures", "explanation_figures"])
def test_figures_know_no_torch(name):
    tree = ast.parse((PROJECT / "analysis" / f"{name}.py").read_text())
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)} - {"analysis.style"}
    assert {name.split(".")[0] for name in names} <= {"collections", "math", "matplotlib", "numpy", "re", "textwrap"}
