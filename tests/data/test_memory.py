import resource

import pytest
import torch

from buttress.data import memory
from buttress.errors import UserError

GB = 10**9


@pytest.fixture
def system(tmp_path, monkeypatch):
    """A system that has 8 GB free, without control groups or limits."""
    monkeypatch.setattr(memory, "_of_system", lambda: 8.0 * GB)
    monkeypatch.setattr(memory, "_of_limits", lambda: float("inf"))
    monkeypatch.setattr(memory, "_CGROUPS", tmp_path)
    monkeypatch.setattr(memory, "started", lambda: None)
    return tmp_path


def group(folder, limit, used, inactive, *, version=2):
    folder.mkdir(parents=True, exist_ok=True)
    names = ("memory.max", "memory.current", "inactive_file")
    if version == 1:
        names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
    (folder / names[0]).write_text(f"{limit}\n")
    (folder / names[1]).write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 5\n{names[2]} {inactive}\n")


def test_half_of_what_is_free_is_for_inputs(system):
    assert memory.fits(4 * GB)
    assert not memory.fits(4 * GB + 1)
    memory.require_memory(4 * GB, "this")
    with pytest.raises(UserError, match=r"^this would take 5.0 GB of memory, more than half of the 8.0 GB that"):
        memory.require_memory(5 * GB, "this")


def test_an_accelerator_has_memory_of_its_own(system, monkeypatch):
    gpu, mps = torch.device("cuda", 0), torch.device("mps", 0)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (GB, 9 * GB))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 3 * GB)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 2 * GB)  # the rest of what is reserved is free
    monkeypatch.setattr(torch.mps, "recommended_max_memory", lambda: 3 * GB)
    monkeypatch.setattr(torch.mps, "driver_allocated_memory", lambda: GB)
    for device in (gpu, mps):
        assert memory.fits(GB, device)
        assert not memory.fits(GB + 1, device)
        with pytest.raises(UserError, match=rf"2.0 GB of the memory of {device}, more than half of the 2.0 GB"):
            memory.require_memory(2 * GB, "this", device)


@pytest.mark.parametrize("version", [1, 2])
def test_the_tightest_control_group_counts_without_the_files_that_are_cached(system, monkeypatch, version):
    root = system / "memory" if version == 1 else system
    line = "7:cpu,memory:/job/step" if version == 1 else "0::/job/step"
    group(root / "job", 3 * GB, 2 * GB, GB // 2, version=version)
    group(root / "job" / "step", "max" if version == 2 else 2**63 - 4096, GB, 0, version=version)
    memberships = "".join(f"{text}\n" for text in ("3:cpuset:/elsewhere", line))
    monkeypatch.setattr(memory.Path, "read_text", _with(memory.Path.read_text, "/proc/self/cgroup", memberships))
    assert memory.free_memory() == 1.5 * GB


def test_the_processes_of_a_host_share_what_is_free(system, monkeypatch):
    monkeypatch.setattr(memory, "started", lambda: type("Started", (), {"here": 4}))
    assert memory.free_memory() == 2.0 * GB


def test_limits_of_the_process_count(monkeypatch):
    used = memory._kibibytes(memory.Path("/proc/self/status"), "VmData")
    limits = {resource.RLIMIT_AS: resource.RLIM_INFINITY, resource.RLIMIT_DATA: int(used) + GB}
    monkeypatch.setattr(resource, "getrlimit", lambda which: (limits[which], resource.RLIM_INFINITY))
    assert abs(memory._of_limits() - GB) < GB / 10


def _with(read_text, name, content):
    return lambda path, *args, **kwargs: content if str(path) == name else read_text(path, *args, **kwargs)
