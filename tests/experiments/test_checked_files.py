"""Files that a run goes on from: any damage, and any other place, is found before they are read."""

import numpy as np
import pytest

from experiments.setup import checked_files


@pytest.mark.parametrize("compressed", [True, False])
def test_every_damage_to_arrays_is_found(compressed, tmp_path, capsys):
    path, place = tmp_path / "a.chunk", b"here"

    def read(place):
        return checked_files.read_arrays(path, place, again="computed again")

    assert read(place) is None
    checked_files.write_arrays(path, place, {"a": np.arange(8.0)}, compressed=compressed)
    content = path.read_bytes()
    np.testing.assert_array_equal(read(place)["a"], np.arange(8.0))
    assert capsys.readouterr().err == ""
    for i in range(0, len(content), 7):
        path.write_bytes(content[:i] + bytes([content[i] ^ 1]) + content[i + 1 :])
        assert read(place) is None
        path.write_bytes(content[:i])
        assert read(place) is None
    path.write_bytes(content)
    assert read(b"there") is None
    assert f"{path} is damaged, or of another experiment: computed again" in capsys.readouterr().err


def test_a_plan_is_what_was_written_or_refused(tmp_path):
    path = tmp_path / "plan.json"
    checked_files.write_plan(path, {"config": {"steps": 3}, "chunk": 8})
    assert checked_files.read_plan(path, "chunk") == {"config": {"steps": 3}, "chunk": 8}
    with pytest.raises(ValueError, match=r"plan.json is damaged \('noise'\); delete"):
        checked_files.read_plan(path, "noise")
    path.write_text(path.read_text().replace("8", "9"))
    with pytest.raises(ValueError, match="its checksum differs"):
        checked_files.read_plan(path, "chunk")


def test_another_config_is_told_field_by_field(tmp_path):
    old = {"config": {"steps": 3, "net": {"width": 4}}, "seed": 0}
    checked_files.check_same(old, old, tmp_path, "states")
    new = {"config": {"steps": 4, "net": {"width": 8}}, "seed": 0, "more": True}
    said = "states of another config: steps was 3, is 4; net.width was 4, is 8; more was None, is"
    with pytest.raises(ValueError, match=said):
        checked_files.check_same(old, new, tmp_path, "states")
