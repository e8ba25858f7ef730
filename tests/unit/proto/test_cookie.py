from __future__ import annotations

import hashlib
import itertools
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tcpha.proto.cookie import LIFE_S, MSS_CLASSES, PERIOD_S, Agreement, Cookie, SynCookies, mss_class
from tcpha.proto.ip import ConnectionKey, connection_key, reverse_key
from tcpha.proto.keyring import Key, Keyring
from tcpha.proto.seqnum import SeqNum
from tests.unit.proto.conftest import (
    CLIENT_IPV4,
    KEY_IPV4,
    KEY_IPV6,
    KEYRING,
    OTHER_KEYRING,
    OTHER_SECRET,
    SECRET,
    VIP_IPV4,
    keys,
    seqnums,
    sub_key,
    u16,
)

IRS = SeqNum(0x11223344)
PERIOD = 53_125_000
START_S = PERIOD * 32.0
"""The first second of `PERIOD`."""
AGREEMENT = Agreement(1460, 7, sack=True)

both_families = pytest.mark.parametrize("key", [KEY_IPV4, KEY_IPV6], ids=["IPv4", "IPv6"])


def cookies(keyring: Keyring = KEYRING) -> SynCookies:
    return SynCookies(keyring)


def by_the_text(client: bytes, vip: bytes, client_port: int, vip_port: int, period: int) -> tuple[int, int]:
    """The digest of the block that docs/wire.md describes; addresses of 16 octets."""
    block = client + vip + struct.pack("!HHII", client_port, vip_port, IRS, period) + bytes(20)
    assert len(block) == 64
    digest = hashlib.blake2s(block, key=sub_key(b"tcpha cookie"), digest_size=8).digest()
    high, low = struct.unpack("!II", digest)
    return high, low


# --- vectors: any other implementation must give these, octet by octet


def test_ipv4_cookie_pinned() -> None:
    client = bytes.fromhex("00000000 00000000 0000ffff c612000a")
    vip = bytes.fromhex("00000000 00000000 0000ffff c6120024")
    high, low = by_the_text(client, vip, 40000, 80, PERIOD)
    agreement = 6 << 5 | 7 << 1 | 1  # class 6 is 1460; window scale 7; SACK

    assert cookies().make(KEY_IPV4, IRS, AGREEMENT, START_S) == (high ^ agreement, low)
    assert (high ^ agreement, low) == (0xBA514C36, 0x267DBFB3)


def test_ipv6_cookie_pinned() -> None:
    client = bytes.fromhex("20010db8 00000000 00000000 0000000a")
    vip = bytes.fromhex("20010db8 00000000 00000000 00000024")
    high, low = by_the_text(client, vip, 40000, 80, PERIOD)
    agreement = 2 << 5 | 15 << 1 | 0  # class 2 is 1220; windows not scaled; no SACK

    assert cookies().make(KEY_IPV6, IRS, Agreement(1220, None, sack=False), START_S) == (high ^ agreement, low)
    assert (high ^ agreement, low) == (0x99CE2772, 0x33A5DA69)


# --- what the cookie carries


@both_families
@pytest.mark.parametrize("mss", MSS_CLASSES)
@pytest.mark.parametrize("has_stamps", [True, False])
def test_every_agreement_survives(key: ConnectionKey, mss: int, has_stamps: bool) -> None:
    front_end = cookies()
    for scale, sack in itertools.product((None, *range(15)), (True, False)):
        agreement = Agreement(mss, scale, sack)
        iss, tsval = front_end.make(key, IRS, agreement, START_S)
        tsecr = tsval if has_stamps else None
        assert front_end.check(key, IRS, iss, tsecr, START_S) == Cookie(agreement, PERIOD, tsecr)


@pytest.mark.parametrize(
    ("mss", "rounded"),
    [(0, 88), (87, 88), (88, 88), (535, 88), (536, 536), (1219, 536), (1220, 1220), (1359, 1220), (1360, 1360),
     (1399, 1360), (1400, 1400), (1439, 1400), (1440, 1440), (1459, 1440), (1460, 1460), (8959, 1460), (8960, 8960),
     (65535, 8960)],
)  # fmt: skip
def test_mss_is_rounded_down_to_its_class(mss: int, rounded: int) -> None:
    assert MSS_CLASSES[mss_class(mss)] == rounded
    iss, tsval = cookies().make(KEY_IPV4, IRS, Agreement(mss, 7, sack=True), START_S)
    found = cookies().check(KEY_IPV4, IRS, iss, tsval, START_S)
    assert found is not None
    assert found.agreement == Agreement(rounded, 7, sack=True)


def test_agreement_bits_of_iss_flipped_only_the_agreement_differs() -> None:
    """Eight bits carry what a client says of itself: it may lie there as it may in its SYN."""
    iss, _ = cookies().make(KEY_IPV4, IRS, AGREEMENT, START_S)
    for octet in range(1, 256):
        found = cookies().check(KEY_IPV4, IRS, SeqNum(iss ^ octet), None, START_S)
        assert found is not None
        assert found.agreement != AGREEMENT


# --- what a cookie is bound to


def made(key: ConnectionKey = KEY_IPV4, utc_s: float = START_S) -> tuple[SeqNum, int]:
    return cookies().make(key, IRS, AGREEMENT, utc_s)


@both_families
@pytest.mark.parametrize("has_stamps", [True, False])
def test_right_cookie_is_accepted_by_any_front_end_with_the_secret(key: ConnectionKey, has_stamps: bool) -> None:
    iss, tsval = made(key)
    assert cookies().check(key, IRS, iss, tsval if has_stamps else None, START_S) is not None


def test_wrong_secret_is_refused() -> None:
    iss, tsval = made()
    assert cookies(OTHER_KEYRING).check(KEY_IPV4, IRS, iss, tsval, START_S) is None
    assert cookies(OTHER_KEYRING).check(KEY_IPV4, IRS, iss, None, START_S) is None


@both_families
def test_any_bit_of_addresses_and_ports_flipped_is_refused(key: ConnectionKey) -> None:
    iss, tsval = made(key)
    for bit in range(len(key) * 8):
        other = bytearray(key)
        other[bit // 8] ^= 1 << bit % 8
        assert cookies().check(ConnectionKey(bytes(other)), IRS, iss, tsval, START_S) is None
        assert cookies().check(ConnectionKey(bytes(other)), IRS, iss, None, START_S) is None


def test_other_direction_is_refused() -> None:
    iss, tsval = made()
    assert cookies().check(reverse_key(KEY_IPV4), IRS, iss, tsval, START_S) is None


@both_families
def test_any_bit_of_irs_flipped_is_refused(key: ConnectionKey) -> None:
    iss, tsval = made(key)
    for bit in range(32):
        assert cookies().check(key, SeqNum(IRS ^ 1 << bit), iss, tsval, START_S) is None


@both_families
def test_any_hash_bit_of_iss_flipped_is_refused(key: ConnectionKey) -> None:
    iss, tsval = made(key)
    for bit in range(8, 32):
        assert cookies().check(key, IRS, SeqNum(iss ^ 1 << bit), tsval, START_S) is None
        assert cookies().check(key, IRS, SeqNum(iss ^ 1 << bit), None, START_S) is None


@both_families
def test_any_bit_of_tsecr_flipped_is_refused(key: ConnectionKey) -> None:
    iss, tsval = made(key)
    for bit in range(32):
        assert cookies().check(key, IRS, iss, tsval ^ 1 << bit, START_S) is None


def test_hash_whose_low_half_is_zero_sends_and_accepts_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SynCookies, "_digest", lambda *_: (0x12345600, 0))
    iss, tsval = cookies().make(KEY_IPV4, IRS, AGREEMENT, START_S)
    assert tsval == 1
    assert cookies().check(KEY_IPV4, IRS, iss, 1, START_S) is not None
    assert cookies().check(KEY_IPV4, IRS, iss, 0, START_S) is None


@given(keys, seqnums, st.builds(Agreement, u16, st.none() | st.integers(0, 14), st.booleans()), st.floats(1e9, 2e9))
def test_any_connection_its_cookie_is_accepted(
    key: ConnectionKey, irs: SeqNum, agreement: Agreement, utc_s: float
) -> None:
    iss, tsval = cookies().make(key, irs, agreement, utc_s)
    assert 0 <= iss <= 0xFFFFFFFF
    assert 1 <= tsval <= 0xFFFFFFFF
    expected = Agreement(MSS_CLASSES[mss_class(agreement.mss)], agreement.window_scale, agreement.sack)
    assert cookies().check(key, irs, iss, tsval, utc_s) == Cookie(expected, int(utc_s) // 32, tsval)


# --- time


@both_families
@pytest.mark.parametrize("made_s", [START_S, START_S + 15.5, START_S + 31.999])
@pytest.mark.parametrize(
    ("checked_s", "is_accepted"),
    [
        (-32.001, False),  # period T-2: made by a clock that is two periods ahead
        (-32.0, True),  # T-1
        (-0.001, True),
        (0.0, True),  # T
        (31.999, True),
        (32.0, True),  # T+1
        (63.999, True),
        (64.0, False),  # T+2
    ],
)
def test_cookie_of_a_period_is_accepted_in_it_and_its_neighbours(
    key: ConnectionKey, made_s: float, checked_s: float, is_accepted: bool
) -> None:
    iss, tsval = made(key, made_s)
    for tsecr in (tsval, None):
        found = cookies().check(key, IRS, iss, tsecr, START_S + checked_s)
        assert (found is not None) is is_accepted
        assert found is None or found.period == PERIOD


def test_cookie_made_at_the_start_of_a_period_lives_for_its_life() -> None:
    iss, tsval = made(utc_s=START_S)
    assert LIFE_S == 2 * PERIOD_S == 64
    assert cookies().check(KEY_IPV4, IRS, iss, tsval, START_S + LIFE_S - 0.001) is not None
    assert cookies().check(KEY_IPV4, IRS, iss, tsval, START_S + LIFE_S) is None


def test_period_beyond_32_bits_wraps_in_the_block() -> None:
    late_s = float(2**32 * PERIOD_S)
    assert made(utc_s=late_s) == made(utc_s=0.0)


@pytest.mark.parametrize(("period", "is_accepted"), [(PERIOD - 1, False), (PERIOD, False), (PERIOD + 1, True)])
def test_period_floor_refuses_its_period_and_all_before(period: int, is_accepted: bool) -> None:
    iss, tsval = made(utc_s=period * 32.0)
    front_end = cookies()
    assert front_end.check(KEY_IPV4, IRS, iss, tsval, START_S) is not None
    front_end.period_floor = PERIOD
    assert (front_end.check(KEY_IPV4, IRS, iss, tsval, START_S) is not None) is is_accepted


# --- two keys


def rotation() -> tuple[SynCookies, SynCookies]:
    """A front end before the keys changed, and one after."""
    old, new = Key(1, SECRET), Key(2, OTHER_SECRET)
    return cookies(Keyring((old, new))), cookies(Keyring((new, old)))


@both_families
@pytest.mark.parametrize("checked_s", [-32.0, 0.0, 32.0])
@pytest.mark.parametrize("has_stamps", [True, False])
def test_either_key_verifies_and_the_first_makes(key: ConnectionKey, checked_s: float, has_stamps: bool) -> None:
    before, after = rotation()
    for maker, checker in ((before, after), (after, before)):
        iss, tsval = maker.make(key, IRS, AGREEMENT, START_S)
        tsecr = tsval if has_stamps else None
        found = checker.check(key, IRS, iss, tsecr, START_S + checked_s)
        assert found == Cookie(AGREEMENT, PERIOD, tsecr)
    assert before.make(key, IRS, AGREEMENT, START_S) == made(key)
    assert after.make(key, IRS, AGREEMENT, START_S) != made(key)


def test_half_of_one_keys_hash_and_half_of_the_others_is_refused() -> None:
    before, after = rotation()
    iss = before.make(KEY_IPV4, IRS, AGREEMENT, START_S)[0]
    tsval = after.make(KEY_IPV4, IRS, AGREEMENT, START_S)[1]
    assert before.check(KEY_IPV4, IRS, iss, tsval, START_S) is None


# --- expired cookies


@both_families
@pytest.mark.parametrize(
    ("age_in_periods", "periods", "is_expired"),
    [(-1, 4, False), (0, 4, False), (1, 4, False), (2, 1, True), (3, 1, False), (3, 2, True), (5, 4, True),
     (6, 4, False), (2, 0, False)],
)  # fmt: skip
def test_cookie_of_a_period_is_expired_for_so_many(
    key: ConnectionKey, age_in_periods: int, periods: int, is_expired: bool
) -> None:
    iss, _ = made(key)
    assert cookies().is_expired(key, IRS, iss, START_S + age_in_periods * 32, periods) is is_expired


def test_expired_cookie_at_the_exact_second() -> None:
    iss, _ = made(utc_s=START_S + 31.999)
    assert not cookies().is_expired(KEY_IPV4, IRS, iss, START_S + 63.999, 9)
    assert cookies().is_expired(KEY_IPV4, IRS, iss, START_S + 64.0, 1)


def test_expired_cookie_of_the_second_key_is_known() -> None:
    before, after = rotation()
    iss, _ = before.make(KEY_IPV4, IRS, AGREEMENT, START_S)
    assert after.is_expired(KEY_IPV4, IRS, iss, START_S + 64, 1)


@pytest.mark.parametrize("irs", [SeqNum(IRS + 1), SeqNum(0)])
def test_expired_cookie_of_another_irs_is_none_of_ours(irs: SeqNum) -> None:
    iss, _ = made()
    assert not cookies().is_expired(KEY_IPV4, irs, iss, START_S + 64, 9)


def test_expired_cookie_of_another_client_is_none_of_ours() -> None:
    iss, _ = made()
    other = connection_key(CLIENT_IPV4, 40001, VIP_IPV4, 80)
    assert not cookies().is_expired(other, IRS, iss, START_S + 64, 9)
    assert not cookies(OTHER_KEYRING).is_expired(KEY_IPV4, IRS, iss, START_S + 64, 9)
