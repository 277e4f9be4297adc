import pathlib

import jax
import pytest

from rmpe_jax.training import huge_pages

ADVICE = "GLIBC_TUNABLES=glibc.malloc.hugetlb=1"


@pytest.fixture
def advice(monkeypatch, tmp_path):
    """The advice on a machine on which huge pages help, but for the given differences."""

    def advise(
        setting="always [madvise] never", glibc="glibc 2.36", backend="cpu", tunables=None
    ) -> str:
        file = tmp_path / "enabled"
        if setting is not None:
            file.write_text(setting)
        monkeypatch.setattr(huge_pages, "_SETTING", file)
        monkeypatch.setattr(huge_pages.os, "confstr", lambda _: glibc)
        monkeypatch.setattr(jax, "default_backend", lambda: backend)
        if tunables is None:
            monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
        else:
            monkeypatch.setenv("GLIBC_TUNABLES", tunables)
        return huge_pages.huge_pages_advice()

    return advise


def test_advice_where_huge_pages_help(advice):
    assert ADVICE in advice()
    assert ADVICE in advice(tunables="glibc.malloc.check=0")


@pytest.mark.parametrize(
    "machine",
    [
        {"setting": "[always] madvise never"},
        {"setting": "always madvise [never]"},
        {"setting": None},
        {"glibc": "glibc 2.34"},
        {"glibc": None},
        {"backend": "gpu"},
        {"tunables": "glibc.malloc.hugetlb=1"},
        {"tunables": "glibc.malloc.hugetlb=2"},
    ],
)
def test_no_advice_where_they_do_not(advice, machine):
    assert advice(**machine) == ""


def test_the_makefile_follows_the_advice():
    makefile = pathlib.Path(__file__).parents[2] / "Makefile"
    assert "demo bench bench-all: export GLIBC_TUNABLES ?= glibc.malloc.hugetlb=1" in (
        makefile.read_text()
    )
