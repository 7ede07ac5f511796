"""verify: what it refuses at the door, what it leaves out, and how it tells a difference from a turned-round order."""

import numpy as np
import pytest

from conversion.arrays import check_inputs, read_arrays, write_arrays
from conversion.comparison import compare
from conversion.verify import shifted

IDS = np.arange(8).reshape(2, 4)

BAD = {
    "nothing to run on": ({"labels": IDS}, "expected input_ids, noisy_ids, bd_input_ids, found labels"),
    "one row without its dim": ({"input_ids": IDS[0]}, r"input_ids is int64 \[4\], expected whole numbers"),
    "fractions": ({"noisy_ids": IDS / 2}, r"noisy_ids is float64 \[2, 4\], expected whole numbers"),
    "an id beyond the vocabulary": ({"input_ids": IDS + 3}, "ids from 3 to 10, expected 0 to 8"),
    "a negative id": ({"input_ids": IDS - 1}, "ids from -1 to 6, expected 0 to 8"),
    "a label beyond the vocabulary": ({"input_ids": IDS, "labels": IDS * 2}, "labels holds ids from 0 to 14"),
    "an odd number of positions": ({"bd_input_ids": IDS[:, :3]}, r"rows of 3 ids, expected \[noisy ; clean\]"),
    "positions of other rows": (
        {"bd_input_ids": IDS, "bd_position_ids": IDS[:1]}, r"bd_position_ids is \[1, 4\], bd_input_ids is \[2, 4\]",
    ),
    "positions that no row holds": (
        {"bd_input_ids": IDS, "bd_position_ids": IDS - 1}, "bd_position_ids holds -1 to 6, expected 0 to 3",
    ),
    "labels of both halves": ({"bd_input_ids": IDS, "labels": IDS}, r"bd_input_ids is \[2, 4\], labels is \[2, 4\]"),
    "labels of another length": ({"noisy_ids": IDS, "labels": IDS[:, :2]}, r"noisy_ids is \[2, 4\], labels is \[2, 2"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_arrays_that_do_not_fit_are_refused_by_name(case):
    arrays, message = BAD[case]
    with pytest.raises(ValueError, match=f"--inputs: .*{message}"):
        check_inputs(arrays, 9)


def test_what_is_not_there_is_filled_in_or_left_out():
    labels = np.where(IDS[:, :2] % 2, IDS[:, :2], -100)
    found = check_inputs({"bd_input_ids": IDS.astype(np.int64), "labels": labels, "attention_mask": IDS}, 9)
    assert found.keys() == {"bd_input_ids", "labels", "bd_position_ids"}
    np.testing.assert_array_equal(found["bd_position_ids"], [[0, 1, 0, 1], [0, 1, 0, 1]])  # as the golden files have it
    np.testing.assert_array_equal(shifted(labels), [[1, -100], [5, -100]])


def test_files_that_are_no_arrays_are_refused(tmp_path):
    np.save(tmp_path / "single.npy", IDS)
    np.savez(tmp_path / "objects.npz", input_ids=np.array([None, "x"], object))
    write_arrays(tmp_path / "good.npz", {"input_ids": IDS})
    (tmp_path / "cut.npz").write_bytes((tmp_path / "good.npz").read_bytes()[:-40])
    for name in ("single.npy", "objects.npz", "cut.npz"):
        with pytest.raises(ValueError, match=rf"--inputs: .*{name} is no \.npz file of plain arrays"):
            read_arrays(tmp_path / name, "--inputs")
    with pytest.raises(ValueError, match=r"--against: .*nothing\.npz is not there"):
        read_arrays(tmp_path / "nothing.npz", "--against")
    assert read_arrays(tmp_path / "good.npz", "--inputs")["input_ids"].tolist() == IDS.tolist()


def test_routing_is_compared_as_a_set_and_everything_else_as_it_stands(capsys):
    chosen = np.array([[3, 1], [0, 2]])
    weight = np.array([[0.6, 0.4], [0.7, 0.3]], np.float32)
    found = {"full_topk_idx": chosen, "full_topk_weight": weight, "loss_same": np.float32(1)}
    turned = {"full_topk_idx": chosen[:, ::-1], "full_topk_weight": weight[:, ::-1], "loss_same": np.float32(1)}
    assert compare(found, turned | {"bd_logits": weight}, "float32", 0.0)
    assert "computes no such array: bd_logits" in capsys.readouterr().out
    wrong = {
        "another expert": {"full_topk_idx": np.array([[3, 1], [0, 4]])},
        "weights of the other expert": {"full_topk_weight": weight},
        "another loss": {"loss_same": np.float32(1.001)},
        "no number": {"loss_same": np.float32(np.nan)},
        "another shape": {"full_topk_idx": chosen[:1]},
    }
    for case, arrays in wrong.items():
        assert not compare(found, turned | arrays, "float32", 0.0), case
    with pytest.raises(ValueError, match=r"--against: has none of full_topk_idx.*it has bd_logits"):
        compare(found, {"bd_logits": weight}, "float32", 0.0)
