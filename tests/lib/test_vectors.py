"""Rows get unit length and keep their dtype; a row of zeros stays one."""

import numpy as np
import pytest

from influcoder_lib.vectors import unit_rows


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rows_get_unit_length_and_keep_their_dtype(dtype):
    found = unit_rows(np.array([[3, 4], [0, 0], [-0.5, 0]], dtype))
    assert found.dtype == dtype
    np.testing.assert_allclose(found, [[0.6, 0.8], [0, 0], [-1, 0]], rtol=1e-6)


def test_no_rows_are_no_rows():
    assert unit_rows(np.zeros((0, 3), np.float32)).shape == (0, 3)
