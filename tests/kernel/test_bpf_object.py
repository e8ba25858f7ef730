"""Loading: what is missing is named, what is pinned is found again, what the verifier walks through stays in bounds."""

from __future__ import annotations

import select
import socket
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from tcpha.errors import EdgeError
from tcpha.kernel.be_maps import Ran, encode_name
from tcpha.lab import namespaces
from tcpha.net import bpf_object
from tcpha.net.bpf import BpfMap, BpfProgram, MapShape, MapType, ProgramType
from tcpha.net.bpf_adopter import PROGRAMS, Adopter, obstacle
from tcpha.net.bpf_attach import attach, attach_clsact
from tcpha.net.bpf_object import ObjectFile, kernel_function, load
from tcpha.net.bpf_ring import RingReader
from tcpha.net.pins import bpffs_of
from tests.kernel.conftest import unique_name
from tests.kernel.frames import KEYRING, PERIOD, handoff
from tests.kernel.rehearsal import ASSIGN

pytestmark = pytest.mark.kernel

VERIFIER_LIMIT = 1_000_000
SHARE = 1 / 3
"""What a program may use of what the verifier walks through, so that another kernel's verifier has room."""
RETURN_2 = struct.pack("<QQ", 0x2_0000_00B7, 0x95)
RETURN_R5 = struct.pack("<QQ", 0x50BF, 0x95)
NUMBERS = MapShape(MapType.HASH, 4, 8, 4)


@pytest.fixture
def ring(bpf: None) -> BpfMap:
    return BpfMap.create("ring", MapShape(MapType.RINGBUF, 0, 0, 4096))


def number(value: int) -> bytes:
    return value.to_bytes(4, sys.byteorder)


# --- files and kernels


@pytest.mark.parametrize("octets", [b"", b"\x7fELF\x02\x01" + bytes(100)])
def test_file_is_no_object_error_names_it(tmp_path: Path, octets: bytes) -> None:
    path = tmp_path / "x.o"
    path.write_bytes(octets)
    with pytest.raises(EdgeError, match=r"x\.o: no file of programs"):
        ObjectFile(path)


def test_file_is_missing_error_names_it(tmp_path: Path) -> None:
    with pytest.raises(EdgeError, match=r"y\.o: No such file"):
        load(tmp_path / "y.o")


def test_object_declares_what_it_needs() -> None:
    file = ObjectFile(PROGRAMS)
    assert file.kernel_functions() == {ASSIGN}
    assert file.programs() == {
        "be_ingress": "tc", "be_segments": "tc", "be_egress": "tc", "be_claim": "syscall", "be_order": "syscall",
    }  # fmt: skip
    assert file.licence == "GPL"


def test_kernel_lacks_the_function_error_names_it(bpf: None, tmp_path: Path) -> None:
    path = tmp_path / "be.bpf.o"
    path.write_bytes(PROGRAMS.read_bytes().replace(ASSIGN.encode(), b"bpf_sk_assign_tcp_reqsX"))
    with pytest.raises(EdgeError, match="this kernel has no bpf_sk_assign_tcp_reqsX: it is too old"):
        load(path)


def test_kernel_tells_no_types_error_names_the_option(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bpf_object, "KERNEL_BTF", Path("/nonexistent"))
    for cached in (bpf_object._kernel_types, kernel_function):  # and again, for those that come after
        cached.cache_clear()
    with pytest.raises(EdgeError, match="CONFIG_DEBUG_INFO_BTF"):
        kernel_function(ASSIGN)
    assert "CONFIG_DEBUG_INFO_BTF" in str(obstacle())


@pytest.mark.parametrize(
    ("held", "missing"),
    [
        ("-all", "CAP_NET_ADMIN and CAP_BPF missing"),
        ("-all,+bpf", "CAP_NET_ADMIN missing"),
        ("-all,+bpf,+net_admin", "CAP_PERFMON missing"),
        ("-all,+bpf,+net_admin,+perfmon", ""),
    ],
)
def test_capabilities_are_missing_error_names_them(bpf: None, held: str, missing: str) -> None:
    code = """if True:
        import pathlib, sys
        from tcpha.net.bpf_object import load
        load(pathlib.Path(sys.argv[1]), results={sys.argv[2]: 0})"""
    words = ["setpriv", f"--bounding-set={held}", sys.executable, "-c", code, str(PROGRAMS), ASSIGN]
    done = subprocess.run(words, capture_output=True, text=True, cwd=PROGRAMS.parents[2], check=False)
    assert (done.returncode == 0) == (not missing)
    assert missing in done.stderr
    assert "the verifier says" not in done.stderr, "where it is known what is missing"


def test_verifier_refuses_error_holds_its_words(bpf: None) -> None:
    with pytest.raises(EdgeError, match=r"the verifier says: .*R5 !read_ok") as caught:
        BpfProgram.load("bad", ProgramType.SCHED_CLS, RETURN_R5, "GPL")
    assert len(str(caught.value)) < 1000


def test_programs_are_loaded_verifier_has_room(bpf: None) -> None:
    with load(PROGRAMS, results={ASSIGN: 0}) as loaded:
        walked = {name: program.verified_instructions() for name, program in loaded.programs.items()}
    assert all(0 < count < SHARE * VERIFIER_LIMIT for count in walked.values()), walked


# --- maps


def test_map_holds_what_was_written(bpf: None) -> None:
    with BpfMap.create("numbers", NUMBERS) as numbers:
        assert numbers.lookup(number(1)) is None
        numbers.update(number(1), b"one12345")
        assert not numbers.insert(number(1), b"two12345")
        assert numbers.insert(number(2), b"two12345")
        assert dict(numbers.items()) == {number(1): b"one12345", number(2): b"two12345"}
        assert numbers.delete(number(1))
        assert not numbers.delete(number(1))
        assert list(numbers.keys()) == [number(2)]
        assert numbers.shape_in_kernel() == NUMBERS


def test_map_is_full_error_says_so(bpf: None) -> None:
    with BpfMap.create("numbers", NUMBERS) as numbers:
        for each in range(4):
            numbers.update(number(each), bytes(8))
        with pytest.raises(EdgeError, match="no room"):
            numbers.update(number(4), bytes(8))


@pytest.mark.parametrize(("key", "value"), [(b"abc", bytes(8)), (bytes(4), bytes(7))])
def test_octets_have_another_size_than_the_maps_nothing_reaches_the_kernel(bpf: None, key: bytes, value: bytes) -> None:
    with BpfMap.create("numbers", NUMBERS) as numbers, pytest.raises(ValueError, match="octets, not"):
        numbers.update(key, value)


def test_map_is_pinned_it_is_found_again(bpffs: Path) -> None:
    assert BpfMap.pinned(bpffs / "numbers", "numbers", NUMBERS) is None
    with BpfMap.create("numbers", NUMBERS) as numbers:
        numbers.update(number(7), b"seven123")
        numbers.pin(bpffs / "numbers")
    found = BpfMap.pinned(bpffs / "numbers", "numbers", NUMBERS)
    assert found is not None
    assert found.lookup(number(7)) == b"seven123"


def test_pinned_map_has_another_shape_error_names_it(bpffs: Path) -> None:
    with BpfMap.create("numbers", NUMBERS) as numbers:
        numbers.pin(bpffs / "numbers")
    with pytest.raises(EdgeError, match="another shape"):
        BpfMap.pinned(bpffs / "numbers", "numbers", MapShape(MapType.HASH, 4, 16, 4))


def test_place_is_no_bpf_file_system_error_says_how_to_mount_one(bpf: None, tmp_path: Path) -> None:
    assert bpffs_of(tmp_path) is None
    with BpfMap.create("numbers", NUMBERS) as numbers, pytest.raises(EdgeError, match="mount -t bpf"):
        numbers.pin(tmp_path / "numbers")


def test_adopter_starts_again_what_ran_is_still_known(adopting: None, bpffs: Path) -> None:
    identity = handoff().identity
    own = (bytes(4), 666)
    (bpffs / "be").mkdir()
    adopter = Adopter(own, KEYRING, mark=1, retry_mark=2, pins=bpffs / "be")
    adopter.renew(PERIOD)
    adopter._generations[PERIOD].insert(encode_name(identity), number(2))
    adopter.close()
    again = Adopter(own, KEYRING, mark=1, retry_mark=2, pins=bpffs / "be")
    try:
        again.renew(PERIOD + 1)
        assert again.claim_identity(identity, PERIOD) is Ran.RAN
        again.renew(PERIOD + 50)
        names = {each.name for each in (bpffs / "be").glob("ran-*")}
        assert names == {f"ran-{period}" for period in range(PERIOD + 47, PERIOD + 53)}
    finally:
        again.close()


# --- running and attaching


def test_program_runs_its_result_is_returned(bpf: None) -> None:
    with BpfProgram.load("two", ProgramType.SCHED_CLS, RETURN_2, "GPL") as program:
        done = program.run(bytes(range(64)), repeat=1000)
    assert (done.returned, done.octets) == (2, bytes(range(64)))
    assert done.duration_ns < 100_000


@pytest.mark.parametrize("direction", ["ingress", "egress"])
@pytest.mark.parametrize("how", ["tcx", "clsact"])
def test_program_is_attached_packets_meet_it_until_it_is_detached(bpf: None, how: str, direction: str) -> None:
    name = unique_name()
    namespaces.create(name)
    try:
        with namespaces.inside(name), BpfProgram.load("two", ProgramType.SCHED_CLS, RETURN_2, "GPL") as program:
            subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
            place = attach(program, "lo", direction) if how == "tcx" else attach_clsact(program, "lo", 1, direction)  # type: ignore[arg-type]
            assert not answers()
            place.detach()
            assert answers()
    finally:
        namespaces.remove(name)


def test_interface_is_missing_error_names_it(bpf: None) -> None:
    two = BpfProgram.load("two", ProgramType.SCHED_CLS, RETURN_2, "GPL")
    with two as program, pytest.raises(EdgeError, match="no interface nowhere0"):
        attach(program, "nowhere0")


def answers() -> bool:
    """Does a datagram go from this namespace to itself?"""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as near:
        near.bind(("127.0.0.1", 0))
        near.sendto(b"x", near.getsockname())
        return bool(select.select([near], [], [], 0.1)[0])


# --- the ring


def test_ring_is_empty_nothing_is_read(ring: BpfMap) -> None:
    reader = RingReader(ring)
    assert reader.read() == []
    reader.close()
    ring.close()
