"""What the processes of one run do together."""

import pytest
import torch

from common import distributed


@pytest.mark.parametrize(
    ("message", "raised"),
    [("[pair.cc] Read error: Connection reset by peer.", ValueError), ("shapes cannot be multiplied", RuntimeError)],
)
def test_a_process_whose_partner_died_says_so(monkeypatch, message, raised):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setattr(distributed.dist, "init_process_group", lambda backend: None)
    monkeypatch.setattr(distributed.dist, "destroy_process_group", lambda: None)
    expected = "another process of this run has ended" if raised is ValueError else message
    with pytest.raises(raised, match=expected), distributed.process_group(torch.device("cpu")):
        raise RuntimeError(message)


def test_the_main_process_goes_first_and_a_failure_of_it_holds_nobody_up(monkeypatch):
    order = []
    monkeypatch.setattr(distributed, "barrier", lambda: order.append("barrier"))
    for rank, expected in ((0, ["work", "barrier"]), (1, ["barrier", "work"])):
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        with distributed.main_first():
            order.append("work")
        assert order == expected
        order.clear()
    monkeypatch.setattr(distributed, "rank", lambda: 0)
    with pytest.raises(ValueError, match="no network"), distributed.main_first():
        raise ValueError("no network")
    assert order == ["barrier"]
