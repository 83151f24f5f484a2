"""Names in messages: the first of many are named, and the others counted."""

from influcoder_lib.errors import listed


def test_of_many_names_the_first_stand_for_all():
    assert listed([]) == ""
    assert listed(["a"]) == "a"
    assert listed(list("abcde")) == "a, b, c, d, e"
    assert listed(list("abcde"), 2) == "a, b and 3 more"
    assert listed([str(n) for n in range(1200)]) == "0, 1, 2, 3, 4 and 1,195 more"
