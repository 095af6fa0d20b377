"""Mistakes are drawn at places of their own, of modules and tests that exist."""

import random

from benchmarks import mutations
from common.console import PROJECT


def test_modules_and_their_tests_exist():
    for module, tests in mutations.MODULES.items():
        assert (PROJECT / module).is_file()
        assert all((PROJECT / "tests" / name).is_file() for name in tests) and tests


def test_the_mistakes_that_are_left_are_at_places_of_their_own(tmp_path):
    from cosmic_ray.work_db import WorkDB, use_db

    (tmp_path / "small.py").write_text("def f(a: int | None, b):\n    return a == b and a + 3 > 1\n")
    config, session = tmp_path / "small.toml", tmp_path / "small.sqlite"
    config.write_text(
        '[cosmic-ray]\nmodule-path = "small.py"\ntimeout = 9.0\nexcluded-modules = []\ntest-command = "true"\n'
        '[cosmic-ray.distributor]\nname = "local"\n'
    )
    mutations.cosmic_ray("init", config, session, cwd=tmp_path)
    mutations.keep_some(session, 4, random.Random(0))
    with use_db(str(session), WorkDB.Mode.open) as db:
        left = [item.mutations[0] for item in db.pending_work_items]
    assert len({mutation.start_pos for mutation in left}) == len(left) == 4
    assert all(mutation.start_pos[0] == 2 for mutation in left)  # not in the annotation
    assert not any(mutation.operator_name.endswith("_Eq_Is") for mutation in left)
    mutations.cosmic_ray("exec", config, session, cwd=tmp_path)
    assert mutations.outcomes(session)[0] == 0 and len(mutations.outcomes(session)[1]) == 4  # `true` notices nothing
