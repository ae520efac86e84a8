"""Locks: what is in them, which inputs decide them, and the builds of PyTorch."""

from __future__ import annotations

import subprocess
import tarfile
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from haversack.errors import InputError, InstallFailed, IntegrityError
from haversack.packages import accelerator, lock, uv
from haversack.packages.lock import Lock, Locker
from haversack.packages.requirements import requirements_of
from haversack.packages.uv import Uv
from tests.packages.conftest import Workshop, needs
from tests.packages.wheels import index, project, served, wheel


def test_a_lock_has_every_package_with_hashes_and_what_the_kernel_needs(workshop: Workshop) -> None:
    wheel(workshop.wheels, "base", "1.5")
    wheel(workshop.wheels, "top", needs=["base"])
    workshop.publish()
    found = workshop.locker.find(needs("top"))
    kernel = dict.fromkeys(("ipykernel", "pip", "setuptools", "six"), "20.0")
    assert found.packages == {"top": "1.0", "base": "1.5", **kernel}
    assert found.pins.count("--hash=sha256:") == 6
    assert Lock.decode(found.text) == found


def test_what_is_no_lock_is_an_input_error() -> None:
    with pytest.raises(InputError):
        Lock.decode("pandas==1.0\n")


def test_the_same_is_not_resolved_again_within_a_day_unless_asked(workshop: Workshop) -> None:
    wheel(workshop.wheels, "base", "1.0")
    workshop.publish()
    first = workshop.locker.find(needs("base"))
    wheel(workshop.wheels, "base", "2.0")
    workshop.publish()
    assert workshop.locker.find(needs("base")) == first
    assert workshop.locker.kept(needs("base")) == first
    assert workshop.locker.find(needs("base"), fresh=True).packages["base"] == "2.0"


def test_another_index_or_other_requirements_are_resolved_anew(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    wheel(workshop.wheels, "base", "1.0")
    workshop.publish()
    assert workshop.locker.find(needs("base")).packages["base"] == "1.0"
    wheel(workshop.wheels, "base", "2.0")
    workshop.publish()
    assert workshop.locker.find(needs("base>=1")).packages["base"] == "2.0"
    wheel(tmp_path / "more", "base", "3.0")
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", index(tmp_path / "extra", *(tmp_path / "more").glob("*.whl")))
    assert workshop.locker.find(needs("base")).packages["base"] == "3.0"


def test_pips_constraints_hold(workshop: Workshop, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for version in ("1.0", "2.0"):
        wheel(workshop.wheels, "base", version)
    workshop.publish()
    (tmp_path / "constraints.txt").write_text("base<2\n")
    monkeypatch.setenv("PIP_CONSTRAINT", str(tmp_path / "constraints.txt"))
    assert workshop.locker.find(needs("base")).packages["base"] == "1.0"


def test_changed_constraints_and_another_block_are_resolved_anew(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for version in ("1.0", "2.0", "3.0"):
        wheel(workshop.wheels, "base", version)
    workshop.publish()
    constraints, needed = tmp_path / "constraints.txt", needs("base")
    monkeypatch.setenv("PIP_CONSTRAINT", str(constraints))
    found = []
    for text in ("base<3\n", "base<2\n"):
        constraints.write_text(text)
        found.append(workshop.locker.find(needed).packages["base"])
    wheel(workshop.wheels, "base", "1.5")
    workshop.publish()
    found.append(workshop.locker.find(needed).packages["base"])
    found.append(workshop.locker.find(replace(needed, block=f"{needed.block}# other")).packages["base"])
    assert found == ["2.0", "1.0", "1.0", "1.5"]


def test_options_of_requirements_txt_hold(workshop: Workshop, tmp_path: Path) -> None:
    wheel(workshop.wheels, "base", "1.0")
    wheel(workshop.wheels, "base", "2.0rc1")
    workshop.publish()
    wheel(tmp_path / "links", "linked")
    (tmp_path / "requirements.txt").write_text("--pre\n--prefer-binary\n-f links\nbase\nlinked\n")
    found = workshop.locker.find(requirements_of(["import os"], {}, tmp_path))
    assert (found.packages["base"], found.packages["linked"]) == ("2.0rc1", "1.0")
    held = workshop.store().get(found, workshop.locker.python_of(found))
    assert list(held.environment.tree.glob("lib/python*/site-packages/linked"))
    held.release()


def test_the_versions_of_another_machines_lock_are_kept(workshop: Workshop) -> None:
    wheel(workshop.wheels, "base", "1.0")
    workshop.publish()
    first = workshop.locker.find(needs("base"))
    wheel(workshop.wheels, "base", "2.0")
    workshop.publish()
    assert workshop.locker.find(needs("base>=1"), known=first).packages["base"] == "1.0"


def carried(workshop: Workshop, *requirements: str) -> str:
    """The `uv.lock` that juv keeps in a notebook with these requirements."""
    script = workshop.folder / "script.py"
    script.write_text(f"# /// script\n# dependencies = {list(requirements)}\n# ///\n".replace("'", '"'))
    command = [uv.program(), "lock", "-q", "--script", str(script), "--python", str(lock.python_.own().path)]
    subprocess.run(command, env=workshop.uv.variables(), check=True)
    return Path(f"{script}.lock").read_text()


def test_a_lock_that_the_notebook_carries_decides_the_versions(workshop: Workshop) -> None:
    wheel(workshop.wheels, "base", "1.0")
    workshop.publish()
    own = carried(workshop, "base")
    wheel(workshop.wheels, "base", "2.0")
    workshop.publish()
    assert workshop.locker.find(needs("base", lock=own)).packages["base"] == "1.0"
    assert workshop.notices == []


def test_a_carried_lock_that_contradicts_its_block_is_not_used_and_that_is_said(workshop: Workshop) -> None:
    for version in ("1.0", "2.0"):
        wheel(workshop.wheels, "base", version)
    workshop.publish()
    own = carried(workshop, "base<2")
    assert workshop.locker.find(needs("base>=2", lock=own)).packages["base"] == "2.0"
    assert len(workshop.notices) == 1
    assert "its versions are not kept" in workshop.notices[0]


def test_a_file_with_another_hash_than_in_the_carried_lock_is_refused(workshop: Workshop) -> None:
    path = wheel(workshop.wheels, "base", "1.0")
    workshop.publish()
    own = carried(workshop, "base")
    path.unlink()
    wheel(workshop.wheels, "base", "1.0", source="evil = True")
    workshop.publish()
    with pytest.raises(IntegrityError, match="base"):
        workshop.locker.find(needs("base", lock=own))


def test_a_notebook_that_imports_haversack_gets_its_dependencies() -> None:
    plain = lock.own_dependencies(requirements_of(["import haversack"], {}))
    assert any(one.startswith("fsspec") for one in plain)
    assert not any("extra" in one or one.startswith("jax") for one in plain)
    assert any(one.startswith("jax") for one in lock.own_dependencies(requirements_of(["import haversack, keras"], {})))
    assert lock.own_dependencies(requirements_of(["from google.colab import drive"], {})) == []


@pytest.mark.parametrize(
    ("given", "day"),
    [("2026-07", "2026-07-31"), ("2026-02-03", "2026-02-03"), ("2024-12", "2024-12-31"), ("2025", "2025-12-31")],
)
def test_a_month_means_its_last_day(given: str, day: str) -> None:
    assert lock.day_of(given) == day


@pytest.mark.parametrize(
    "given", ["July", "2026-13", "2026-02-30", "26-01", (datetime.now(UTC) + timedelta(2)).strftime("%Y-%m-%d")]
)
def test_what_is_no_day_or_not_over_is_an_input_error(given: str) -> None:
    with pytest.raises(InputError, match="--as-of"):
        lock.day_of(given)


# PyTorch's builds, from stand-ins: wheels of the same names and versions

CPU = "cp{0}-cp{0}-manylinux_2_28_x86_64"


@pytest.fixture
def torches(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> Workshop:
    """An index with torch for CUDA, as PyPI has it; PyTorch's own index cannot be reached, and there is no GPU."""
    monkeypatch.setattr(accelerator, "_INDEXES", "http://127.0.0.1:1/whl")
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.setattr(accelerator, "accelerator", lambda: "cpu")
    tag = CPU.format(lock.python_.own().minor.replace(".", ""))
    wheel(workshop.wheels, "nvidia-cublas", files={"nvidia/blob": bytes(4000)})
    wheel(workshop.wheels, "torch", "2.14.1", needs=["nvidia-cublas"], tag=tag, files={"torch/blob": bytes(9000)})
    wheel(workshop.wheels, "torchvision", "0.29.1", needs=["torch==2.14.1"], tag=tag)
    workshop.publish()
    return workshop


def test_without_a_gpu_torch_is_the_cpu_build_of_pips_folder(
    torches: Workshop, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tag = CPU.format(lock.python_.own().minor.replace(".", ""))
    wheel(tmp_path / "cpu", "torch", "2.13.0+cpu", tag=tag)
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "cpu"))
    found = torches.locker.find(needs("torch"))
    assert found.packages["torch"] == "2.13.0+cpu"
    assert not any(name.startswith("nvidia") for name in found.packages)
    assert torches.notices == []


def test_the_cuda_build_is_not_fetched_from_a_server_that_has_the_cpu_build(
    torches: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    tag = CPU.format(lock.python_.own().minor.replace(".", ""))
    wheel(torches.wheels, "torch", "2.14.1+cpu", tag=tag)
    wheel(torches.wheels, "torchvision", "0.29.1+cpu", needs=["torch==2.14.1"], tag=tag)
    torches.publish()
    with served(torches.folder / "index") as (address, asked):
        monkeypatch.setenv("PIP_INDEX_URL", address)
        found = torches.locker.find(needs("torch", "torchvision"))
        torches.store().get(found, torches.locker.python_of(found)).release()
    assert (found.packages["torch"], found.packages["torchvision"]) == ("2.14.1+cpu", "0.29.1+cpu")
    fetched = [path for path in asked if path.endswith(".whl")]
    assert not [path for path in fetched if "nvidia" in path]


def test_a_cpu_torch_without_its_torchvision_is_not_taken(
    torches: Workshop, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tag = CPU.format(lock.python_.own().minor.replace(".", ""))
    wheel(tmp_path / "cpu", "torch", "2.14.1+cpu", tag=tag)
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "cpu"))
    assert torches.locker.find(needs("torch", "torchvision")).packages["torch"] == "2.14.1"
    assert "Only PyTorch's CUDA build" in torches.notices[0]


def test_where_only_the_cuda_build_can_be_had_that_is_said_before_the_download(torches: Workshop) -> None:
    found = torches.locker.find(needs("torch"))
    assert found.packages["torch"] == "2.14.1"
    assert torches.notices[0].startswith("Only PyTorch's CUDA build")


def test_the_size_of_the_cuda_build_is_that_of_its_wheels() -> None:
    wheels = 'wheels = [{ url = "x-x86_64.whl", size = 500 }, { url = "x-aarch64.whl", size = 900 }]'
    packages = f'[[packages]]\nname = "torch"\n{wheels}\n[[packages]]\nname = "numpy"\n{wheels}\n'
    packages += '[[packages]]\nname = "nvidia-cublas"\nwheels = [{ url = "y-x86_64.whl", size = 70 }]\n'
    assert accelerator.cuda_size(packages) == 570


def test_whether_pytorchs_index_answers_is_asked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "whl" / "cpu").mkdir(parents=True)
    with served(tmp_path) as (address, asked):
        monkeypatch.setattr(accelerator, "_INDEXES", f"{address}/whl")
        assert accelerator.pytorch_index_answers(tmp_path / "kept", {})
        assert accelerator.pytorch_index_answers(tmp_path / "kept", {})
    assert len(asked) == 1
    assert not accelerator.pytorch_index_answers(tmp_path / "other", {})


def test_without_builds_a_package_without_a_wheel_is_refused_and_none_of_its_code_runs(
    workshop: Workshop, tmp_path: Path
) -> None:
    marker = tmp_path / "ran"
    folder = project(tmp_path / "evil", "evil", "1.0", "value = 1\n")
    backend = folder / "backend.py"
    backend.write_text(f"import pathlib; pathlib.Path({str(marker)!r}).touch()\n{backend.read_text()}")
    (folder / "PKG-INFO").write_text("Metadata-Version: 2.1\nName: evil\nVersion: 1.0\n")
    with tarfile.open(tmp_path / "evil-1.0.tar.gz", "w:gz") as archive:
        archive.add(folder, "evil-1.0")
    index(workshop.folder / "index", *workshop.wheels.glob("*.whl"), tmp_path / "evil-1.0.tar.gz")
    cautious = Locker(workshop.locker.folder, Uv.make(workshop.cache, builds=False))
    with pytest.raises(InstallFailed, match="has no wheel") as raised:
        cautious.find(needs("evil"))
    assert "--trust" in raised.value.next_step
    assert not marker.exists()
    found = workshop.locker.find(needs("evil"))
    workshop.store().get(found, workshop.locker.python_of(found)).release()
    assert marker.exists()
