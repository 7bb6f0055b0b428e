"""A training box and an inference box on two hosts, joined by the ssh road with its two confined keys."""

from roadpair import RoadPair


def test_a_release_goes_live_over_the_two_confined_keys(pair: RoadPair) -> None:
    release = pair.release(weights_bytes=1 << 20)
    pair.wish(release, None)
    seen = pair.settle(release)
    assert pair.live == release
    assert seen.reachable
    assert [line.event for line in pair.mirrored()] == ["live"]
