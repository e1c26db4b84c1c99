import dataclasses
from pathlib import Path

import numpy as np
import pytest

from clipjax.data.builders import photographs
from clipjax.data.builders.photographs import PHOTOGRAPHS, credits, load_photographs

NOTICE = Path(__file__).parents[3] / "NOTICE"


def test_training_and_test_photographs_are_different():
    train, test = load_photographs(test=False), load_photographs(test=True)
    assert not set(train) & set(test)
    assert set(train) | set(test) == {p.name for p in PHOTOGRAPHS}
    assert len({p.sha256 for p in PHOTOGRAPHS}) == len(PHOTOGRAPHS)
    for picture in [*train.values(), *test.values()]:
        assert picture.dtype == np.uint8
        assert picture.shape[2] == 3
        assert min(picture.shape[:2]) >= 300


def test_notice_credits_every_photograph():
    notice = NOTICE.read_text()
    assert all(line in notice for line in credits().splitlines())


def test_every_credit_names_author_licence_and_source():
    for photograph, line in zip(PHOTOGRAPHS, credits().splitlines(), strict=True):
        assert photograph.author
        assert photograph.licence.startswith(
            ("CC0", "CC BY", "public domain", "no known copyright")
        )
        for part in (photograph.title, photograph.author, photograph.licence, photograph.source):
            assert part in line


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sha256": "0" * 64}, r"astronaut.png is not the photograph.*expected 0000"),
        ({"file": "data/nobody.png"}, "scikit-image has no data/nobody.png"),
    ],
)
def test_a_file_that_is_not_the_photograph_is_refused(monkeypatch, change, message):
    astronaut = dataclasses.replace(PHOTOGRAPHS[0], **change)
    monkeypatch.setattr(photographs, "PHOTOGRAPHS", (astronaut,))
    with pytest.raises(ValueError, match=message):
        load_photographs(test=False)
