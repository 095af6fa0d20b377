"""A run with its evaluation."""

import pytest

import evaluate


@pytest.fixture(scope="module")
def evaluated(vit_run):
    evaluate.main([str(vit_run)])
    return vit_run
