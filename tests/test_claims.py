"""What `make claims` measures anew is what the documentation says."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

CLAIMS = Path(__file__).parents[1] / "benchmarks" / "claims.py"
pytestmark = pytest.mark.skipif(not CLAIMS.exists(), reason="needs the whole checkout")


@pytest.fixture(scope="module")
def claims():
    spec = importlib.util.spec_from_file_location("claims", CLAIMS)
    module = importlib.util.module_from_spec(spec)
    sys.modules["claims"] = module
    with pytest.MonkeyPatch.context() as patch:
        # It asks for one thread, which a process whose threads run already cannot be told.
        for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
            patch.setenv(name, "1")
        spec.loader.exec_module(module)
    return module


def test_every_claim_is_still_on_its_page(claims):
    for name, claim in claims.CLAIMS.items():
        assert len(claim.stated()) == claim.text.count("#"), name
        assert (claim.times is None) or claim.off == 0, name
    assert len(claims.CLAIMS) > 10


def test_figures_are_read_across_lines(claims, monkeypatch, tmp_path):
    (tmp_path / "page.md").write_text("It takes 1,004.5\n  s (+0.3 GB), on\none core: -2 %.")
    monkeypatch.setattr(claims, "ROOT", tmp_path)
    claim = claims.Claim("page.md", "takes # s (# GB), on one core: # %", list)
    assert claim.stated() == [1004.5, 0.3, -2]
    with pytest.raises(LookupError, match="0 places that read 'gives #'"):
        claim._replace(text="gives #").stated()


def test_what_holds(claims):
    time = claims.Claim("", "", list, times=3)
    assert time.holds(1.0, 0.1)
    assert time.holds(1.0, 3.0)
    assert not time.holds(1.0, 3.1)
    other = claims.Claim("", "", list, off=0.1)
    assert other.holds(1.0, 0.9)
    assert not other.holds(1.0, 1.2)
    assert (time.allowed, other.allowed) == ("up to 3 times", "± 0.1")


def test_the_table_and_its_exit_code(claims, capsys, monkeypatch, tmp_path):
    (tmp_path / "page.md").write_text("one 1, two 2, three 3")

    def nothing():
        raise claims.MissingError("no file")

    made = {
        "right": claims.Claim("page.md", "one #", lambda: [1.0]),
        "wrong": claims.Claim("page.md", "two #", lambda: [2.5], off=0.1),
        "absent": claims.Claim("page.md", "three #", nothing),
    }
    monkeypatch.setattr(claims, "ROOT", tmp_path)
    monkeypatch.setattr(claims, "CLAIMS", made)
    monkeypatch.setattr(sys, "argv", ["claims.py"])
    with pytest.raises(SystemExit, match="1 claims do not hold: wrong"):
        claims.main()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("right: page.md: 1 (± 0); measured 1: holds")
    assert "measured 2.5: DOES NOT HOLD" in lines[1]
    assert lines[2].endswith("not run: no file")
    monkeypatch.setattr(sys, "argv", ["claims.py", "right"])
    claims.main()
