"""fsspec's own suite for file systems: copying, fetching, storing, exclusive creation."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import pytest
from fsspec.implementations.local import LocalFileSystem
from fsspec.tests import abstract

from haversack.drive.filesystem import DriveFileSystem
from tests.conftest import RunningHub


class DriveFixtures(abstract.AbstractFixtures):
    @pytest.fixture
    def fs(self, hub: RunningHub) -> DriveFileSystem:
        return DriveFileSystem(auto_mkdir=True)

    @pytest.fixture
    def fs_path(self, fs: DriveFileSystem) -> Iterator[str]:
        path = f"conformance-{secrets.token_hex(6)}"
        fs.mkdir(path)
        yield path
        fs.rm(path, recursive=True)

    @pytest.fixture
    def local_fs(self) -> LocalFileSystem:
        return LocalFileSystem(auto_mkdir=True)

    @pytest.fixture
    def supports_empty_directories(self) -> bool:
        return True


class TestCopy(abstract.AbstractCopyTests, DriveFixtures):
    pass


class TestGet(abstract.AbstractGetTests, DriveFixtures):
    pass


class TestPut(abstract.AbstractPutTests, DriveFixtures):
    pass


class TestOpen(abstract.AbstractOpenTests, DriveFixtures):
    pass


class TestPipe(abstract.AbstractPipeTests, DriveFixtures):
    pass
