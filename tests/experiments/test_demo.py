"""The demo's way from config to page, on the smallest grid; `make demo` is the same with more."""

from experiments import demo, high_probability

CONFIG = """
from experiments.config import *
run = Run(
    task="classification", dataset="digits", model=MLP(), optimizer=SGD(0.1),
    duration=Duration(steps=10), batch_size=64, evaluate_every=Duration(steps=5), log_every=5,
)
config = Grid({"classification/sgd": run}, seeds=(0, 1))
"""


def test_ends_with_the_page_and_does_nothing_twice(tmp_path, monkeypatch, capsys):
    small = high_probability.Config(replicas=50, steps=40, records=5)
    monkeypatch.setattr(high_probability, "Config", lambda: small)
    (tmp_path / "grid.py").write_text(CONFIG)
    arguments = ["--config", str(tmp_path / "grid.py"), "--workdir", str(tmp_path / "demo")]
    arguments += ["--distributed", "off"]  # JAX has started already
    monkeypatch.setenv("CLIPJAX_CACHE_DIR", str(tmp_path / "cache"))
    assert demo.main(arguments) == 0
    first = capsys.readouterr().out
    assert "[2/2] classification/sgd/seed1" in first
    assert "report.html" in first
    page = (tmp_path / "demo" / "report.html").read_text()
    assert "clipped-SSTM" in page
    assert (tmp_path / "demo" / "report.md").exists()
    assert demo.main(arguments) == 0
    assert "[2/2]" not in capsys.readouterr().out
