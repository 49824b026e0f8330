"""Inputs that are almost right: what was valid, with pieces cut, doubled, swapped and altered."""

from collections import Counter
from collections.abc import Sequence

from hypothesis import strategies as st

GIVEN: Counter[str] = Counter()
REFUSED: Counter[str] = Counter()
"""Inputs by parser."""

WORDS = [
    b"null", b"-1", b"1e999", b"NaN", b"{}", b"[]", b'""', b"0", b"99999999999999999999", b"true",
    b"\x00", b"\xff", b"..", b"/", b"*a", b"&a", b"!!python/name:os.system", b"\n", b": ", b",",
    b"os:abort", b"it", b"ep", b"2:4", b"%s", b"\xe2\x80\xae",
]  # fmt: skip


@st.composite
def mutants(draw: st.DrawFn, whole: Sequence[bytes]) -> bytes:
    """One of the valid inputs after one to six edits."""
    said = draw(st.sampled_from(whole))
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, len(said)))
        length = draw(st.sampled_from([0, 1, 1, 2, 4, 8, 40]))
        edit = draw(st.integers(0, 5))
        cut = said[at : at + length]
        if edit == 0:  # put something in the place of something
            said = said[:at] + draw(st.sampled_from(WORDS)) + said[at + length :]
        elif edit == 1:  # flip bits
            flip = draw(st.integers(1, 255))
            said = said[:at] + bytes(byte ^ flip for byte in cut) + said[at + length :]
        elif edit == 2:  # leave out
            said = said[:at] + said[at + length :]
        elif edit == 3:  # say twice, elsewhere
            there = draw(st.integers(0, len(said)))
            said = said[:there] + cut + said[there:]
        elif edit == 4:  # cut short
            said = said[: max(at, len(said) - length)]
        else:
            said = said[:at] + draw(st.binary(max_size=8)) + said[at:]
    return said
